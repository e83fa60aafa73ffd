/** The frame around the pages: navigation, theme, who is signed in, whether the daemon answers. */

import { get, Problem, signals, token } from './api.js';
import { themeChanged } from './charts.js';
import { fill, h, icon } from './dom.js';
import { here, match, setQuery } from './router.js';
import { liveRegion, loading, pageHead, problemBox, toastRegion } from './widgets.js';
import * as admin from './page-admin.js';
import * as compare from './page-compare.js';
import * as datasets from './page-datasets.js';
import * as experiment from './page-experiment.js';
import * as experiments from './page-experiments.js';
import * as newExperiment from './page-new.js';
import * as queue from './page-queue.js';
import * as signin from './page-signin.js';
import * as sweep from './page-sweep.js';
import * as sweeps from './page-sweeps.js';

const pages = [
    ['/', experiments],
    ['/experiments', experiments],
    ['/experiments/{}', experiment],
    ['/experiments/{}/{}', experiment],
    ['/compare', compare],
    ['/sweeps', sweeps],
    ['/sweeps/{}', sweep],
    ['/new', newExperiment],
    ['/datasets', datasets],
    ['/datasets/{}', datasets],
    ['/queue', queue],
    ['/admin', admin],
];

const places = [
    { path: '/experiments', text: 'Experiments', icon: 'list' },
    { path: '/sweeps', text: 'Sweeps', icon: 'sweep' },
    { path: '/queue', text: 'Queue', icon: 'queue' },
    { path: '/datasets', text: 'Data sets', icon: 'data' },
    { path: '/admin', text: 'People', icon: 'people' },
];

/** @type {import('./router.js').Me} */
const me = { name: null, role: 'admin', users: false, canWrite: true, admin: false };

const main = h('main', { id: 'main' });
const nav = h('nav.nav', { 'aria-label': 'Main' });
const banner = h(
    'div.banner',
    { role: 'alert', hidden: true },
    icon('warn'),
    'No connection to the daemon. Trying again …',
);
const account = h('div.account');

/* ---- Theme ---- */

const THEME = 'ovrd.theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const isDark = () =>
    (localStorage.getItem(THEME) ?? (system.matches ? 'dark' : 'light')) === 'dark';
const themeButton = h('button.round', { type: 'button', onclick: () => setTheme(!isDark()) });

function setTheme(dark) {
    localStorage.setItem(THEME, dark ? 'dark' : 'light');
    showTheme();
}

function showTheme() {
    const dark = isDark();
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    const text = dark ? 'Light theme' : 'Dark theme';
    themeButton.title = text;
    themeButton.setAttribute('aria-label', text);
    fill(themeButton, icon(dark ? 'sun' : 'moon'));
    themeChanged();
}

/* ---- The frame ---- */

function showNav(path) {
    const isHere = (place) =>
        path === place.path ||
        path.startsWith(`${place.path}/`) ||
        (place.path === '/experiments' && (path === '/' || path === '/compare'));
    fill(
        nav,
        places
            .filter((p) => p.path !== '/admin' || me.admin)
            .map((p) =>
                h(
                    'a',
                    { href: `#${p.path}`, 'aria-current': isHere(p) ? 'page' : null },
                    icon(p.icon),
                    h('span', p.text),
                ),
            ),
    );
}

function showAccount() {
    const signOut = () => {
        sessionStorage.clear(); /* the token, and a draft that is nobody else's business */
        location.reload();
    };
    fill(
        account,
        me.name &&
            h(
                'span.who',
                { title: `Signed in as ${me.name}, ${me.role}` },
                me.name,
                h('small', me.role),
            ),
        token.get() &&
            h(
                'button.round',
                { type: 'button', title: 'Sign out', 'aria-label': 'Sign out', onclick: signOut },
                icon('out'),
            ),
    );
}

/* The address has the page, so the link moves the focus itself. */
function skip(event) {
    event.preventDefault();
    (main.querySelector('h1') ?? main).focus();
}

function showFrame() {
    document.body.replaceChildren(
        h('a.skip', { href: '#main', onclick: skip }, 'Skip to content'),
        h(
            'header.top',
            h(
                'a.brand',
                { href: '#/experiments' },
                h('img', { src: '/assets/icon.svg', alt: '', width: 24, height: 24 }),
                'ovrd',
            ),
            nav,
            h(
                'div.tools',
                me.canWrite &&
                    h(
                        'a.button.primary.new',
                        { href: '#/new', 'aria-label': 'New experiment' },
                        icon('plus'),
                        h('span', 'New'),
                    ),
                themeButton,
                account,
            ),
        ),
        h('div.body', banner, main),
        toastRegion(),
        liveRegion(),
    );
}

/* ---- Pages ---- */

let leave = new AbortController();

async function showPage(moved) {
    leave.abort();
    leave = new AbortController();
    const { signal } = leave;
    const { path, query } = here();
    const [found, params] = find(path);
    showNav(path);
    const root = h('div.page', loading());
    main.replaceChildren(root);
    window.scrollTo(0, 0);
    try {
        if (!found)
            throw new Problem({
                status: 404,
                title: 'Not found',
                detail: `There is no page ${path}.`,
            });
        await found.show({ root, params, query, signal, setQuery, me });
    } catch (error) {
        if (signal.aborted || error.name === 'AbortError') return;
        if (error.status !== 401)
            root.replaceChildren(
                pageHead(error.title ?? 'Trouble'),
                problemBox(error, () => showPage(true)),
            );
    }
    if (moved && !signal.aborted) main.querySelector('h1')?.focus({ preventScroll: true });
}

function find(path) {
    for (const [pattern, page] of pages) {
        const params = match(pattern, path);
        if (params) return [page, params];
    }
    return [null, []];
}

/* ---- Who is there ---- */

async function meet() {
    const { name, role, scope, users } = await get('/v1/me');
    Object.assign(me, {
        name,
        role,
        users,
        canWrite: scope !== 'read',
        admin: users && scope === 'admin',
    });
}

function showSignin() {
    leave.abort();
    signin.show(document.body, start);
}

async function start() {
    document.body.replaceChildren(h('div.page', loading()));
    try {
        await meet();
    } catch (error) {
        if (error.status !== 401)
            document.body.replaceChildren(h('div.page', problemBox(error, start)));
        return;
    }
    showFrame();
    showAccount();
    await showPage(false);
}

signals.addEventListener('unauthorized', showSignin);
signals.addEventListener('offline', () => (banner.hidden = false));
signals.addEventListener('online', () => (banner.hidden = true));
addEventListener('hashchange', () => main.isConnected && showPage(true));
system.addEventListener('change', showTheme);
showTheme();
start();
