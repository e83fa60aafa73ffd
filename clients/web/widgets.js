/** What several pages show: states, problems, dialogs, tabs, key figures, tables. */

import { blobUrl, Problem, signals } from './api.js';
import { fill, h, icon, newId, setText, svg } from './dom.js';
import { ago, NONE, when } from './format.js';

/** A state with its dot; the colour is never the only sign. */
export const badge = (state) => h(`span.badge.${state}`, state);

export const tag = (text, onclick) =>
    onclick
        ? h('button.tag', { type: 'button', title: `Show all tagged ${text}`, onclick }, text)
        : h('span.tag', text);

/** A time as "3 min ago", the exact one in its title. */
export const timeAgo = (time) =>
    time ? h('time', { datetime: time, title: when(time) }, ago(time)) : NONE;

/** A bar from 0 to 1; null: nobody knows how far. */
export function progressBar(label) {
    const bar = h('span.bar-fill');
    const element = h(
        'span.bar',
        { role: 'progressbar', 'aria-label': label, 'aria-valuemin': 0, 'aria-valuemax': 100 },
        bar,
    );
    return {
        element,
        set(share) {
            element.classList.toggle('unknown', share === null);
            if (share === null) return element.removeAttribute('aria-valuenow');
            element.setAttribute('aria-valuenow', Math.round(100 * share));
            bar.style.width = `${(100 * share).toFixed(1)}%`;
        },
    };
}

/** How far a running experiment is, 0..1. */
export const shareOf = (progress) =>
    progress?.steps ? Math.min(1, progress.step / progress.steps) : null;

export function button(text, { name, kind = '', onclick, title, ...rest } = {}) {
    return h(
        `button.button${kind ? `.${kind}` : ''}`,
        { type: 'button', onclick, title, ...rest },
        name && icon(name),
        text && h('span', text),
    );
}

export const linkButton = (text, href, name, kind = '') =>
    h(`a.button${kind ? `.${kind}` : ''}`, { href }, name && icon(name), h('span', text));

/** A number with its name below. */
export function figure(label, value, { title, note } = {}) {
    return h('div.figure', { title }, h('dt', label), h('dd', h('span', value), note && h('small', note)));
}

export const loading = (text = 'Loading …') =>
    h('div.state', { role: 'status' }, h('span.spinner'), text);

/** Nothing there yet, and what to do about it. */
export const empty = (title, text, ...actions) =>
    h(
        'div.state.empty',
        h('strong', title),
        text && h('p', text),
        actions.length > 0 && h('div.actions', actions),
    );

/** A problem as its text, with its faults; one for want of a connection is tried again by itself. */
export function problemBox(error, retry) {
    const title = error instanceof Problem ? error.title : 'The dashboard failed';
    const faults = (error.errors ?? []).filter((f) => f.detail !== error.message);
    const box = h(
        'div.problem',
        { role: 'alert' },
        icon('warn'),
        h(
            'div',
            h('strong', title),
            h('p', error.message),
            faults.length > 0 &&
                h(
                    'ul',
                    faults.map((f) =>
                        h(
                            'li',
                            (f.pointer ?? f.parameter) && h('code', f.pointer ?? f.parameter),
                            ' ',
                            f.detail,
                        ),
                    ),
                ),
            retry && button('Try again', { name: 'again', onclick: retry }),
        ),
    );
    if (retry && error.status === 0)
        signals.addEventListener('online', () => box.isConnected && retry(), { once: true });
    return box;
}

/* ---- What happens at the edge of the page ---- */

const region = h('div.toasts', { role: 'status', 'aria-live': 'polite' });

export const toastRegion = () => region;

/** A short message; problems stay longer. */
export function toast(text, kind = 'done') {
    const element = h(`div.toast.${kind}`, icon(kind === 'done' ? 'check' : 'warn'), text);
    region.append(element);
    setTimeout(() => element.remove(), kind === 'done' ? 4000 : 9000);
}

/** Runs what a button does; says what went wrong. Returns whether it went well. */
export async function attempt(work, done) {
    try {
        await work();
    } catch (error) {
        if (error.name !== 'AbortError') toast(error.message, 'failed');
        return false;
    }
    if (done) toast(done);
    return true;
}

/**
 * A dialog; body may have fields. Resolves to true for yes, false for no and Escape.
 * @param {{title: string, body: *, yes: string, no?: string?, kind?: string, check?: () => Promise<boolean>}} options
 *   no is null where there is nothing to call off; check runs on yes; the dialog stays open while it says false.
 */
export function ask({ title, body, yes, no = 'Cancel', kind = 'primary', check }) {
    const id = newId('dialog');
    return new Promise((resolve) => {
        const submit = async (event) => {
            event.preventDefault();
            if (check && !(await check())) return;
            dialog.returnValue = 'yes';
            dialog.close('yes');
        };
        const dialog = h(
            'dialog.dialog',
            { 'aria-labelledby': id },
            h(
                'form',
                { onsubmit: submit },
                h('h2', { id }, title),
                h('div.dialog-body', body),
                h(
                    'div.actions.end',
                    no && button(no, { onclick: () => dialog.close('no') }),
                    h(`button.button.${kind}`, { type: 'submit' }, yes),
                ),
            ),
        );
        dialog.addEventListener('close', () => {
            dialog.remove();
            resolve(dialog.returnValue === 'yes');
        });
        document.body.append(dialog);
        dialog.showModal();
    });
}

/* ---- Choices ---- */

/**
 * A row of choices of which one holds.
 * @param {[string, string][]} choices value and text
 */
export function segmented(label, choices, value, onchange) {
    const buttons = choices.map(([key, text]) =>
        h(
            'button',
            { type: 'button', 'aria-pressed': String(key === value), onclick: () => choose(key) },
            text,
        ),
    );
    function choose(key) {
        choices.forEach(([k], i) => buttons[i].setAttribute('aria-pressed', String(k === key)));
        onchange(key);
    }
    return h('div.segmented', { role: 'group', 'aria-label': label }, buttons);
}

/** A labelled control in a row of a toolbar or dialog. */
export function labelled(text, control, hint) {
    control.id ||= newId('field');
    const hintId = hint && newId('hint');
    if (hintId) control.setAttribute('aria-describedby', hintId);
    return h(
        'div.field',
        h('label', { for: control.id }, text),
        control,
        hint && h('small.hint', { id: hintId }, hint),
    );
}

export const select = (choices, value, onchange, attributes) =>
    h(
        'select',
        { ...attributes, onchange: (e) => onchange?.(e.target.value) },
        choices.map(([key, text]) => h('option', { value: key, selected: key === value }, text)),
    );

/**
 * Tabs whose contents are made when they are first shown.
 * @param {{key: string, text: string, make: (panel: HTMLElement) => void}[]} tabs
 */
export function tabs(label, tabs, chosen, onchange) {
    const id = newId('tab');
    const panels = tabs.map((t) =>
        h('div.panel', {
            role: 'tabpanel',
            id: `${id}-p-${t.key}`,
            'aria-labelledby': `${id}-${t.key}`,
            tabindex: 0,
            hidden: true,
        }),
    );
    const buttons = tabs.map((t, i) =>
        h(
            'button',
            {
                type: 'button',
                role: 'tab',
                id: `${id}-${t.key}`,
                'aria-controls': panels[i].id,
                onclick: () => choose(i),
            },
            t.text,
        ),
    );
    const made = new Set();
    function choose(i, focus) {
        buttons.forEach((b, k) => {
            b.setAttribute('aria-selected', String(k === i));
            b.tabIndex = k === i ? 0 : -1;
            panels[k].hidden = k !== i;
        });
        if (focus) buttons[i].focus();
        buttons[i].scrollIntoView({ block: 'nearest', inline: 'nearest' });
        if (!made.has(i)) {
            made.add(i);
            tabs[i].make(panels[i]);
        }
        onchange(tabs[i].key);
    }
    const move = (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const from = buttons.indexOf(document.activeElement);
        if (!step || from < 0) return;
        event.preventDefault();
        choose((from + step + tabs.length) % tabs.length, true);
    };
    const list = h('div.tabs', { role: 'tablist', 'aria-label': label, onkeydown: move }, buttons);
    const element = h('div', list, panels);
    return {
        element,
        open: () =>
            choose(
                Math.max(
                    0,
                    tabs.findIndex((t) => t.key === chosen),
                ),
            ),
    };
}

/* ---- Tables ---- */

/**
 * A table in a box that scrolls sideways by itself.
 * @param {{text: string, key?: string, number?: boolean, title?: string}[]} columns with a key: sortable
 * @param {{sort?: string, onsort?: (sort: string) => void, caption: string}} options sort: key or -key
 */
export function table(columns, rows, { sort, onsort, caption } = {}) {
    return h(
        'div.scroll',
        { tabindex: 0, role: 'region', 'aria-label': caption },
        h(
            'table',
            h('caption.sr', caption),
            h(
                'thead',
                h(
                    'tr',
                    columns.map((c) => heading(c, sort, onsort)),
                ),
            ),
            h('tbody', rows),
        ),
    );
}

export function heading(column, sort, onsort) {
    const kind = column.number ? '.n' : '';
    if (!column.text) return h('th', { scope: 'col' }, h('span.sr', 'Actions'));
    if (!column.key || !onsort)
        return h(`th${kind}`, { scope: 'col', title: column.title }, column.text);
    const up = sort === column.key;
    const down = sort === `-${column.key}`;
    const order = up ? 'ascending' : down ? 'descending' : 'none';
    const next =
        down || (up && column.textual) ? (down ? column.key : `-${column.key}`) : `-${column.key}`;
    return h(
        `th${kind}`,
        { scope: 'col', 'aria-sort': order, title: column.title },
        h(
            'button.sort',
            { type: 'button', onclick: () => onsort(next) },
            column.text,
            h('span.arrow', { 'aria-hidden': 'true' }, up ? '▲' : down ? '▼' : ''),
        ),
    );
}

/** Names and values. */
export const facts = (pairs) =>
    h(
        'dl.facts',
        pairs
            .filter(Boolean)
            .map(([name, value]) => h('div', h('dt', name), h('dd', value ?? NONE))),
    );

/** A line of numbers in a small box; null values are gaps. */
export function sparkline(values, label) {
    const width = 96;
    const height = 24;
    const known = values.filter((v) => v !== null && v !== undefined);
    if (known.length < 2) return h('span.spark');
    const low = Math.min(...known);
    const span = Math.max(...known) - low || 1;
    const points = values
        .map((v, i) =>
            v === null || v === undefined
                ? null
                : `${((i / (values.length - 1)) * (width - 4) + 2).toFixed(1)},${(height - 3 - ((v - low) / span) * (height - 6)).toFixed(1)}`,
        )
        .filter(Boolean);
    return svg(
        'svg',
        { viewBox: `0 0 ${width} ${height}`, class: 'spark', role: 'img', 'aria-label': label },
        svg('polyline', { points: points.join(' ') }),
    );
}

/** Puts a page's heading together and names the window. */
export function pageHead(title, { sub, actions, before } = {}) {
    document.title = `${title} · ovrd`;
    return h(
        'header.page-head',
        h('div.page-title', before, h('h1', { tabindex: -1 }, title), sub),
        actions && h('div.actions', actions),
    );
}

/** Pictures that need the token, side by side. */
export async function pictures(list, path, alt, signal) {
    const urls = await Promise.all(list.map((range) => blobUrl(path(range), signal)));
    return h(
        'div.pictures',
        urls.map((src, i) => h('img.picture', { src, alt: alt(list[i]) })),
    );
}

/** Says something to those who can't see it change. */
const live = h('div.sr', { role: 'status', 'aria-live': 'polite' });
export const liveRegion = () => live;
export const announce = (text) => setText(live, text);

/** Shows `loading`, then what make() returns, or its problem. */
export async function load(element, make, signal) {
    fill(element, loading());
    try {
        const made = await make();
        if (!signal?.aborted) fill(element, made);
    } catch (error) {
        if (signal?.aborted || error.name === 'AbortError') return;
        fill(
            element,
            problemBox(error, () => load(element, make, signal)),
        );
    }
}
