/** The list of experiments: live, filtered and sorted by the daemon, as long as one scrolls. */

import { get, getPage, poll } from './api.js';
import { fill, h, icon, setText } from './dom.js';
import { at, count, duration, NONE, number, percent, whyQueued } from './format.js';
import { href } from './router.js';
import {
    badge,
    button,
    empty,
    linkButton,
    loading,
    pageHead,
    problemBox,
    progressBar,
    select,
    shareOf,
    sparkline,
    tag,
    timeAgo,
} from './widgets.js';

const POLL_MS = 2500;
const PAGE = 50;
const ROOM = 12; /* rows kept above and below what is seen */

const states = ['running', 'queued', 'paused', 'succeeded', 'failed', 'cancelled'];
const sorts = [
    ['', 'Newest first'],
    ['created', 'Oldest first'],
    ['-finished', 'Finished last'],
    ['-result.accuracy', 'Highest accuracy'],
    ['-result.sparsity.near_zero', 'Most near zero'],
    ['-result.sparsity.zero', 'Most exact zeros'],
    ['result.sparsity.dead_units', 'Fewest dead units'],
    ['result.sparsity.overlap', 'Least overlap'],
    ['result.seconds', 'Fastest'],
];

/** @param {import('./router.js').Context} context */
export async function show(context) {
    const { root, query, signal, setQuery } = context;
    const filter = Object.fromEntries(
        ['name', 'state', 'tag', 'owner', 'sort'].map((k) => [k, query.get(k) ?? '']),
    );
    const picked = new Map();
    const list = makeList(context, picked, (text) => change({ tag: text }), showPicked);
    const compare = linkButton('Compare', '#/compare', 'sweep');
    const found = h('span.muted', { role: 'status', 'aria-live': 'polite' });

    let timer = 0;
    function change(changes) {
        Object.assign(filter, changes);
        setQuery(filter);
        tagChip();
        clearTimeout(timer);
        timer = setTimeout(() => list.restart(filter), 150);
    }
    function showPicked() {
        compare.hidden = picked.size < 2;
        compare.href = href('/compare', { ids: [...picked.keys()].join(',') });
        setText(compare.querySelector('span'), `Compare ${picked.size}`);
    }
    const search = h('input', {
        type: 'search',
        placeholder: 'Name begins with …',
        'aria-label': 'Name begins with',
        value: filter.name,
        oninput: (e) => change({ name: e.target.value }),
    });
    const chip = h('span');
    function tagChip() {
        fill(
            chip,
            filter.tag &&
                button(`Tag: ${filter.tag}`, {
                    name: 'close',
                    kind: 'small',
                    title: 'Show other tags too',
                    onclick: () => change({ tag: '' }),
                }),
        );
    }
    tagChip();
    showPicked();
    const owner = h('input', {
        type: 'search',
        size: 9,
        placeholder: 'Owner',
        'aria-label': 'Owner',
        value: filter.owner,
        oninput: (e) => change({ owner: e.target.value }),
    });

    fill(
        root,
        pageHead('Experiments', { sub: found, actions: [compare] }),
        h(
            'div.toolbar',
            h('div.search', icon('search'), search),
            select(
                [['', 'Any state'], ...states.map((s) => [s, s])],
                filter.state,
                (v) => change({ state: v }),
                { 'aria-label': 'State' },
            ),
            context.me.users && owner,
            select(sorts, filter.sort, (v) => change({ sort: v }), { 'aria-label': 'Order' }),
            chip,
        ),
        h('div.card.flush', list.element),
    );
    list.onfound = (n, more) => setText(found, n ? `${count(n)}${more ? ' and more' : ''}` : '');
    await list.restart(filter);
    signal.addEventListener('abort', () => clearTimeout(timer));
}

/* ---- The list: loaded page by page, drawn only where it is seen ---- */

function makeList({ signal, me }, picked, onTag, onPick) {
    const items = []; /* as loaded */
    const rows = new Map(); /* id → row that is drawn */
    const above = h('div.spacer');
    const below = h('div.spacer');
    const body = h('div.rows', { role: 'rowgroup' });
    const foot = h('div.list-foot', { hidden: true });
    const grid = h(
        'div',
        { role: 'table', 'aria-label': 'Experiments' },
        headRow(),
        above,
        body,
        below,
    );
    const element = h('div', grid, foot);
    const self = { element, restart, onfound: () => {} };
    let next = null;
    let busy = false;
    let run = new AbortController();
    let filter = {};

    async function restart(newFilter) {
        run.abort();
        run = new AbortController();
        const mine = run.signal;
        filter = { ...newFilter };
        items.length = 0;
        rows.clear();
        body.replaceChildren();
        grid.hidden = true;
        foot.hidden = false;
        fill(foot, loading());
        try {
            await loadMore(listPath(filter), mine);
        } catch (error) {
            if (mine.aborted || signal.aborted) return;
            fill(
                foot,
                problemBox(error, () => restart(filter)),
            );
            if (error.status) return;
        }
        poll(() => refresh(mine), POLL_MS, AbortSignal.any([mine, signal])).catch((error) =>
            fill(foot, problemBox(error)),
        );
    }

    async function loadMore(path, mine) {
        const page = await getPage(path, mine);
        if (mine.aborted) return;
        items.push(...page.data.experiments);
        next = page.next;
        draw();
    }

    /* The first page again; those that are not in it but still change, one by one. */
    async function refresh(mine) {
        const page = await getPage(listPath(filter), mine);
        const fresh = page.data.experiments;
        const known = new Set(fresh.map((e) => e.id));
        const seen = items.filter((e) => rows.has(e.id) && !known.has(e.id) && !e.finished_at);
        const again = await Promise.all(
            seen.slice(0, 20).map((e) => get(`/v1/experiments/${e.id}`, mine).catch(() => e)),
        );
        if (mine.aborted || busy) return;
        const newer = new Map(again.map((e) => [e.id, e]));
        /* Behind it goes on what was loaded, unless so much is new that there is a gap. */
        const joint = fresh.length ? items.findIndex((e) => e.id === fresh.at(-1).id) : -1;
        const rest = page.next && joint >= 0 ? items.slice(joint + 1) : [];
        if (!rest.length) next = page.next;
        items.splice(0, items.length, ...fresh, ...rest.map((e) => newer.get(e.id) ?? e));
        draw();
    }

    const rowHeight = () => (matchMedia('(max-width: 760px)').matches ? 84 : 52);

    function draw() {
        grid.hidden = items.length === 0;
        showFoot();
        self.onfound(items.length, next);
        const height = rowHeight();
        const top = grid.getBoundingClientRect().top;
        const from = Math.max(0, Math.floor(-top / height) - ROOM);
        const to = Math.min(items.length, Math.ceil((innerHeight - top) / height) + ROOM);
        above.style.height = `${from * height}px`;
        below.style.height = `${Math.max(0, items.length - to) * height}px`;
        grid.setAttribute('aria-rowcount', next ? -1 : items.length + 1);
        const wanted = new Set();
        let before = null;
        for (let i = from; i < to; i++) {
            const item = items[i];
            wanted.add(item.id);
            let row = rows.get(item.id);
            if (!row)
                rows.set(item.id, (row = makeRow(item, { signal, picked, onTag, onPick, me })));
            row.element.setAttribute('aria-rowindex', i + 2);
            row.show(item);
            const place = before ? before.nextSibling : body.firstChild;
            if (place !== row.element) body.insertBefore(row.element, place);
            before = row.element;
        }
        for (const [id, row] of rows)
            if (!wanted.has(id)) {
                row.element.remove();
                rows.delete(id);
            }
        if (next && to > items.length - 30) more();
    }

    async function more() {
        if (busy) return;
        busy = true;
        showFoot();
        const mine = run.signal;
        try {
            await loadMore(next, mine);
        } catch (error) {
            if (!mine.aborted && !signal.aborted) fill(foot, problemBox(error, draw));
        } finally {
            busy = false;
        }
        if (next && !mine.aborted && below.style.height === '0px') draw();
    }

    function showFoot() {
        foot.hidden = items.length > 0 && !next;
        if (foot.hidden) return;
        if (items.length)
            return void fill(foot, busy ? loading('Loading more …') : 'Scroll for more');
        const filtered = ['name', 'state', 'tag', 'owner'].some((k) => filter[k]) || filter.sort;
        fill(
            foot,
            filtered
                ? empty(
                      'Nothing fits',
                      'No experiment has this name, state or tag. Sorted by a figure, only those that have it are listed.',
                  )
                : empty(
                      'No experiments yet',
                      me.canWrite
                          ? 'Begin with one on generated points, or upload data. In a terminal:'
                          : 'What the others post shows up here at once.',
                      ...(me.canWrite ? firstSteps(me) : []),
                  ),
        );
    }

    let frame = 0;
    const later = () => {
        frame ||= requestAnimationFrame(() => {
            frame = 0;
            if (!signal.aborted && items.length) draw();
        });
    };
    addEventListener('scroll', later, { passive: true, signal });
    addEventListener('resize', later, { signal });
    signal.addEventListener('abort', () => run.abort());
    return self;
}

/** For somebody who opens the page of a daemon that has nothing yet. */
const firstSteps = (me) => [
    h(
        'pre.json',
        { tabindex: 0, 'aria-label': 'The same in a terminal' },
        `curl ${me.users ? '-H "Authorization: Bearer $OVRD_TOKEN" ' : ''}${location.origin}/v1/experiments \\
  --json '{"dataset": {"generator": "sphere"}, "model": {"kind": "mlp", "hidden": [200]}}'`,
    ),
    linkButton('New experiment', '#/new', 'plus', 'primary'),
    linkButton('Upload data', '#/datasets', 'data'),
];

const listPath = (filter) => `/v1/experiments${href('', { ...filter, limit: PAGE }).slice(1)}`;

function headRow() {
    const cell = (kind, text, title) => h(`div${kind}`, { role: 'columnheader', title }, text);
    return h(
        'div.row.head',
        { role: 'row', 'aria-rowindex': 1 },
        cell('.c-pick', h('span.sr', 'Compare')),
        cell('.c-name', 'Name'),
        cell('.c-state', 'State'),
        cell('.c-how', 'Progress'),
        cell('.n.c-accuracy', 'Accuracy', 'On the test split'),
        cell('.n.c-near', 'Near zero', 'Share of activations with |h| < 0.1'),
        cell('.n.c-zero', 'Exact zero', 'Share of activations that are exactly 0'),
        cell('.c-spark', 'Loss', 'J of the watched split over the epochs'),
        cell('.n.c-time', 'Created'),
    );
}

/* ---- A row ---- */

function makeRow(item, { signal, picked, onTag, onPick, me }) {
    const pick = h('input', {
        type: 'checkbox',
        checked: picked.has(item.id),
        onchange: () => {
            if (pick.checked) picked.set(item.id, item.name);
            else picked.delete(item.id);
            onPick();
        },
    });
    const link = h('a', { href: `#/experiments/${item.id}` });
    const sub = h('div.row-sub');
    const state = h('div.c-state', { role: 'cell' });
    const how = h('div.row-how.c-how', { role: 'cell' });
    const bar = progressBar('Progress');
    const accuracy = h('div.n.c-accuracy', { role: 'cell', 'data-label': 'Accuracy' });
    const near = h('div.n.c-near', { role: 'cell', 'data-label': 'Near zero' });
    const zero = h('div.n.c-zero', { role: 'cell', 'data-label': 'Exact zero' });
    const spark = h('div.c-spark', { role: 'cell' });
    const time = h('div.n.c-time', { role: 'cell', 'data-label': 'Created' });
    const element = h(
        'div.row',
        { role: 'row' },
        h('div.c-pick', { role: 'cell' }, pick),
        h('div.row-name.c-name', { role: 'cell' }, link, sub),
        state,
        how,
        accuracy,
        near,
        zero,
        spark,
        time,
    );
    let shown = null;
    let sparkOf = null;

    function show(e) {
        const key = `${e.revision} ${e.state} ${JSON.stringify(e.progress)} ${e.queue?.position} ${e.queue?.reason}`;
        if (key === shown) return;
        shown = key;
        setText(link, e.name);
        link.title = e.name;
        pick.setAttribute('aria-label', `Compare ${e.name}`);
        fill(
            sub,
            [
                e.owner && me.users ? e.owner : null,
                e.sweep && h('a', { href: `#/sweeps/${e.sweep}` }, `sweep, point ${e.point}`),
            ].filter(Boolean),
            e.tags.map((t) => tag(t, () => onTag(t))),
            !e.tags.length && !e.sweep && h('span.mono', e.id),
        );
        fill(state, badge(e.state));
        how.classList.toggle('failed', e.state === 'failed');
        fill(how, howItGoes(e, bar));
        setText(accuracy, percent(e.result?.accuracy));
        setText(near, percent(at(e, 'result.sparsity.near_zero')));
        setText(zero, percent(at(e, 'result.sparsity.zero')));
        fill(time, timeAgo(e.created_at));
        drawSpark(e);
    }

    async function drawSpark(e) {
        const of = `${e.state} ${e.progress?.epoch}`;
        if (of === sparkOf || (!e.started_at && e.state === 'queued')) return;
        sparkOf = of;
        const losses = await lossesOf(e, signal);
        if (losses && element.isConnected)
            fill(
                spark,
                sparkline(losses, `Loss from ${number(losses[0])} to ${number(losses.at(-1))}`),
            );
    }
    return { element, show };
}

function howItGoes(e, bar) {
    if (e.state === 'running' && e.progress) {
        const p = e.progress;
        const share = p.phase === 'training' ? shareOf(p) : null;
        bar.set(share);
        const eta = p.eta_seconds === null ? '' : ` · ${duration(p.eta_seconds)} left`;
        return [
            p.phase === 'training' ? `epoch ${p.epoch}/${p.epochs}${eta}` : `${p.phase}${eta}`,
            bar.element,
        ];
    }
    const text = {
        queued: () => e.queue && whyQueued(e.queue),
        failed: () => e.error?.detail ?? e.error?.title,
        succeeded: () =>
            e.result ? `${count(e.result.epochs)} epochs in ${duration(e.result.seconds)}` : NONE,
    }[e.state]?.();
    return text ? h('span.clip', { title: text }, text) : NONE;
}

/* ---- Sparklines: what has ended is asked for once, a few at a time ---- */

const SPARK_POINTS = 24;
const sparks = new Map();
const waiting = [];
let asking = 0;

function lossesOf(e, signal) {
    const key = `${e.id} ${e.state} ${e.progress?.epoch}`;
    if (sparks.has(key)) return sparks.get(key);
    const promise = new Promise((resolve) => {
        waiting.push(async () => {
            try {
                const { series } = await get(
                    `/v1/experiments/${e.id}/metrics?max_points=${SPARK_POINTS}`,
                    signal,
                );
                resolve(
                    series.map((s) => s.validation?.loss ?? s.test?.loss ?? s.train?.loss ?? null),
                );
            } catch {
                sparks.delete(key);
                resolve(null);
            }
        });
    });
    if (sparks.size > 2000) sparks.clear();
    sparks.set(key, promise);
    askNext();
    return promise;
}

async function askNext() {
    if (asking >= 3 || !waiting.length) return;
    asking += 1;
    await waiting.pop()();
    asking -= 1;
    askNext();
}
