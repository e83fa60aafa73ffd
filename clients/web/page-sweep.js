/** One sweep: accuracy and sparsity against what varies, and the table of its points. */

import { act, download, get, poll } from './api.js';
import { chart, color, N_COLORS, percentAxis } from './charts.js';
import { fill, h, refill, svg } from './dom.js';
import {
    at,
    between,
    count,
    duration,
    NONE,
    number,
    percent,
    pointerParts,
    specValue,
} from './format.js';
import { href, mayChange } from './router.js';
import { tally } from './page-sweeps.js';
import {
    announce,
    ask,
    attempt,
    badge,
    button,
    empty,
    figure,
    linkButton,
    pageHead,
    progressBar,
    select,
    table,
    tag,
    timeAgo,
} from './widgets.js';

const POLL_MS = 2000;
const LINES_MOST = N_COLORS;

const measures = [
    ['accuracy', 'Accuracy', true],
    ['sparsity.near_zero', 'Near zero', true],
    ['sparsity.zero', 'Exactly zero', true],
    ['sparsity.overlap', 'Overlap', false],
    ['sparsity.dead_units', 'Dead units', false],
    ['sparsity.active_units.mean', 'Active units', false],
    ['sparsity.over_samples.hoyer', 'Hoyer', false],
    ['test.loss', 'Loss J (test)', false],
    ['seconds', 'Seconds', false],
];
const nameOf = (path) => measures.find(([p]) => p === path)[1];
const isShare = (path) => measures.find(([p]) => p === path)[2];

/* Accuracy, unless there is none: a sweep without probe. */
const firstMeasure = (points) =>
    points.some((p) => p.result) && points.every((p) => typeof p.result?.accuracy !== 'number')
        ? 'sparsity.zero'
        : 'accuracy';

/* λ rather than its pointer. */
const greek = {
    '/loss/ovr/lambda': 'λ',
    '/loss/ovr/lambda_per_pair': 'λ per pair',
    '/model/hidden/0': 'units',
};
export const axisName = (pointer) => greek[pointer] ?? pointerParts(pointer).slice(-2).join('.');

/** @param {import('./router.js').Context} context */
export async function show({ root, params, signal, me }) {
    const path = `/v1/sweeps/${encodeURIComponent(params[0])}`;
    const sweep = await get(path, signal);
    const model = {
        sweep,
        lit: null,
        sort: '',
        listeners: [],
        left: firstMeasure(sweep.points),
        right: 'sparsity.near_zero',
        axis: null,
    };
    const head = h('div');
    const figures = h('div.stack');
    const plots = h('div.stack');
    const points = h('div');
    fill(root, head, figures, plots, points);
    const showAll = () => {
        refill(head, heading(model.sweep, refresh, me));
        fill(
            figures,
            keyFigures(model.sweep),
            model.sweep.target &&
                h(
                    `p.notice${model.sweep.target.outcome === 'reached' ? '.fine' : ''}`,
                    `Search for near_zero ${number(model.sweep.target.near_zero)} ± ${number(model.sweep.target.tolerance)}: ${model.sweep.target.detail}`,
                ),
        );
        showPlots();
        showPoints();
    };
    let card = null;
    /* A search adds points, and with them perhaps an axis; otherwise the choices stay. */
    function showPlots() {
        if (!card || card.axes !== numericAxes(model.sweep.points).join()) {
            card = figureCard(model, signal);
            fill(plots, card.element);
        }
        card.draw();
    }
    function showPoints() {
        refill(
            points,
            pointTable(model, (sort) => showPoints((model.sort = sort)), path),
        );
        light(model, model.lit);
    }
    async function refresh() {
        const before = model.sweep;
        model.sweep = await get(path, signal);
        if (before.revision === model.sweep.revision) return;
        if (before.state !== model.sweep.state)
            announce(`${model.sweep.name} is ${model.sweep.state}`);
        showAll();
    }
    model.table = points;
    showAll();
    await poll(
        async () => {
            await refresh();
            return model.sweep.state === 'running';
        },
        POLL_MS,
        signal,
    );
}

function heading(s, refresh, me) {
    const cancel = async () => {
        const sure = await ask({
            title: `Cancel ${s.name}?`,
            body: h(
                'p',
                'Its experiments that have not ended are cancelled; results that are there stay.',
            ),
            yes: 'Cancel it',
            kind: 'danger',
        });
        if (!sure) return;
        await attempt(async () => {
            await act('POST', `/v1/sweeps/${s.id}/cancel`);
            await refresh();
        }, 'Cancelled');
    };
    const done = s.points.filter((p) => p.experiments.some((x) => x.state === 'succeeded'));
    const sub = [
        badge(s.state),
        s.tags.map((t) => tag(t)),
        h('span.muted', 'created ', timeAgo(s.created_at), ' · ', h('code', s.id)),
    ];
    return pageHead(s.name, {
        sub,
        actions: [
            s.state === 'running' &&
                mayChange(me, s.owner) &&
                button('Cancel', { name: 'stop', kind: 'danger', onclick: cancel }),
            done.length > 1 &&
                done.length <= 12 &&
                linkButton(
                    'Compare points',
                    href('/compare', {
                        ids: done
                            .map((p) => p.experiments.find((x) => x.state === 'succeeded').id)
                            .join(','),
                    }),
                    'list',
                ),
            me.canWrite && linkButton('Run with changes', href('/new', { sweep: s.id }), 'edit'),
            button('Table (CSV)', {
                name: 'down',
                onclick: () =>
                    attempt(() => download(`/v1/sweeps/${s.id}?format=csv`, `${s.name}.csv`)),
            }),
        ].filter(Boolean),
    });
}

function keyFigures(s) {
    const { ended, all } = tally(s.counts);
    const best = bestPoint(s.points);
    const axis = numericAxes(s.points)[0];
    const bar = progressBar('Experiments that have ended');
    bar.set(all ? ended / all : 0);
    return [
        s.state === 'running' &&
            h(
                'div.card.live',
                h('span', `${count(ended)} of ${count(all)} experiments`),
                bar.element,
                h(
                    'span.muted',
                    `${count(s.counts.running)} running, ${count(s.counts.queued)} queued`,
                ),
            ),
        h(
            'dl.figures',
            figure('Points', count(s.size), {
                note: s.repeats > 1 ? `× ${s.repeats} seeds` : null,
            }),
            figure('Succeeded', count(s.counts.succeeded), { note: `of ${count(all)}` }),
            figure('Failed', count(s.counts.failed)),
            best &&
                figure('Best accuracy', percent(best.result.accuracy, 2), {
                    title: describe(best.values),
                }),
            best &&
                axis &&
                figure(`Reached at ${axisName(axis)}`, specValue(best.values[axis]), {
                    title: describe(best.values),
                }),
            best && figure('Near zero there', percent(at(best, 'result.sparsity.near_zero'), 2)),
            figure('Took', duration(between(s.created_at, s.finished_at))),
        ),
    ];
}

const describe = (values) =>
    Object.entries(values)
        .map(([p, v]) => `${axisName(p)} = ${specValue(v)}`)
        .join(', ');

function bestPoint(points) {
    let best = null;
    for (const p of points) if (p.result?.accuracy > (best?.result.accuracy ?? -1)) best = p;
    return best;
}

/* ---- The figure ---- */

/** Pointers of numbers that differ between points; λ first. */
export function numericAxes(points) {
    const seen = new Map();
    for (const p of points)
        for (const [pointer, v] of Object.entries(p.values))
            if (typeof v === 'number') seen.set(pointer, (seen.get(pointer) ?? new Set()).add(v));
    return [...seen]
        .filter(([, values]) => values.size > 1)
        .map(([pointer]) => pointer)
        .sort((a, b) => b.includes('lambda') - a.includes('lambda'));
}

/**
 * Where values go on an axis: logarithmic when they spread over more than a factor of 30; zero, which
 * has no logarithm, stands a decade left of the smallest.
 */
export function makeScale(values) {
    const positive = values.filter((v) => v > 0);
    const low = Math.min(...positive);
    const high = Math.max(...positive);
    const log = positive.length > 1 && values.every((v) => v >= 0) && high / low > 30;
    if (!log) return { log, place: (v) => v, splits: null, text: (v) => number(v, 3) };
    const zeroAt = Math.floor(Math.log10(low)) - 1;
    const hasZero = values.includes(0);
    const splits = [];
    for (
        let d = hasZero ? zeroAt : Math.floor(Math.log10(low));
        d <= Math.ceil(Math.log10(high));
        d++
    )
        splits.push(d);
    const place = (v) => (v === 0 ? zeroAt : Math.log10(v));
    return {
        log,
        place,
        splits,
        text: (x) => (hasZero && x === zeroAt ? '0' : number(10 ** x, 3)),
    };
}

/* Those in sight, as many as have room for their labels. */
function decadesIn(splits, u, low, high) {
    const perDecade = u.bbox.width / devicePixelRatio / (high - low);
    const every = Math.max(1, Math.ceil(44 / perDecade));
    return splits.filter((s) => s >= low && s <= high).filter((s, k) => k % every === 0);
}

/* Points in lines: one for each combination of what else varies. */
function linesOf(points, axis) {
    const lines = new Map();
    for (const p of points) {
        if (typeof p.values[axis] !== 'number') continue;
        const rest = Object.fromEntries(Object.entries(p.values).filter(([k]) => k !== axis));
        const name = describe(rest);
        if (!lines.has(name)) lines.set(name, []);
        lines.get(name).push(p);
    }
    return [...lines];
}

/**
 * The figure's card, whose choices stay as they are while what is below them is drawn anew.
 * @returns {{element: HTMLElement, draw: () => void}}
 */
function figureCard(model, signal) {
    const axes = numericAxes(model.sweep.points);
    const title = h('h2');
    const body = h('div');
    const parallel = h('div');
    let inner = new AbortController();
    signal.addEventListener('abort', () => inner.abort());

    function draw() {
        inner.abort();
        inner = new AbortController();
        model.listeners = [];
        if (axes.length) {
            const axis = axes.includes(model.axis) ? model.axis : axes[0];
            fill(title, titleOf(model, axis), h('small', remarks(model, axis)));
            fill(body, chartOrWait(model, axis, inner.signal));
        }
        fill(parallel, parallelCard(model));
    }
    const choose = (key) => (v) => {
        model[key] = v;
        draw();
    };
    const choices = measures.map(([path, name]) => [path, name]);
    const tools = h(
        'div.toolbar',
        select(choices, model.left, choose('left'), { 'aria-label': 'Left axis' }),
        select(choices, model.right, choose('right'), { 'aria-label': 'Right axis' }),
        axes.length > 1 &&
            select(
                axes.map((a) => [a, `against ${axisName(a)}`]),
                model.axis ?? axes[0],
                choose('axis'),
                { 'aria-label': 'Axis below' },
            ),
    );
    const card = axes.length > 0 && h('section.card', h('div.card-head', title, tools), body);
    return { element: h('div.stack', card, parallel), draw, axes: axes.join() };
}

const titleOf = (model, axis) =>
    `${nameOf(model.left)} and ${nameOf(model.right).toLowerCase()} against ${axisName(axis)}`;

function remarks(model, axis) {
    const { points, repeats } = model.sweep;
    const lines = linesOf(points, axis).length;
    return [
        repeats > 1 && 'mean ± standard deviation over the seeds',
        points.some((p) => p.error && typeof p.values[axis] === 'number') && '✕: failed',
        lines > LINES_MOST && `the first ${LINES_MOST} of ${lines} lines`,
        'click a point to find it below',
    ]
        .filter(Boolean)
        .join('; ');
}

function chartOrWait(model, axis, signal) {
    if (model.sweep.points.some((p) => p.result)) return sweepChart(model, axis, signal).element;
    const how = 'The first point of the figure comes with the first experiment that succeeds.';
    return empty('No result yet', how);
}

function sweepChart(model, axis, signal) {
    const lines = linesOf(model.sweep.points, axis).slice(0, LINES_MOST);
    const values = model.sweep.points
        .map((p) => p.values[axis])
        .filter((v) => typeof v === 'number');
    const scale = makeScale(values);
    const xs = [...new Set(values)].sort((a, b) => a - b);
    const series = [];
    const data = [xs.map(scale.place)];
    const spreads = [];
    const single = lines.length === 1;
    lines.forEach(([name, points], i) => {
        for (const [side, path] of [model.left, model.right].entries()) {
            const by = new Map(points.map((p) => [p.values[axis], p]));
            series.push({
                label: [name, nameOf(path)].filter(Boolean).join(' · '),
                color: single ? side : i,
                scale: side ? 'y2' : 'y',
                dashed: side === 1,
                points: true,
                pointSize: 7,
                text: (u, v) => (isShare(path) ? percent(v, 2) : number(v)),
            });
            data.push(xs.map((x) => at(by.get(x)?.result ?? {}, path) ?? null));
            spreads.push(xs.map((x) => at(by.get(x)?.sd ?? {}, path) ?? null));
        }
    });
    /* Room for the whiskers. */
    const rangeOf = (side) => (u, low, high) => {
        const ends = series.flatMap((s, k) =>
            s.scale === side
                ? data[k + 1].flatMap((v, i) =>
                      v === null ? [] : [v - (spreads[k][i] ?? 0), v + (spreads[k][i] ?? 0)],
                  )
                : [],
        );
        const [a, b] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [low ?? 0, high ?? 1];
        const room = (b - a || Math.abs(a) || 1) * 0.08;
        return [a - room, b + room];
    };
    const failed = xs.map((x) => pointsOf(model, axis, x).some((p) => p.error));
    const shareAxis = (path, side) => ({
        scale: { range: rangeOf(side) },
        axis: {
            ...(isShare(path) ? percentAxis : {}),
            label: nameOf(path),
            labelSize: 18,
            labelGap: 0,
            labelFont: '600 11px system-ui, sans-serif',
        },
    });
    const made = chart(
        {
            label: `${nameOf(model.left)} and ${nameOf(model.right)} against ${axisName(axis)}`,
            xLabel: axisName(axis),
            height: 340,
            series,
            data,
            x: {
                scale: {
                    range: (u, low, high) => [
                        low - (high - low) * 0.04 - 1e-9,
                        high + (high - low) * 0.04 + 1e-9,
                    ],
                },
                axis: scale.log
                    ? {
                          splits: (u, i, low, high) => decadesIn(scale.splits, u, low, high),
                          values: (u, all) => all.map(scale.text),
                      }
                    : {},
                series: {
                    value: (u, v, s, i) =>
                        i === null || i === undefined ? NONE : number(xs[i], 4),
                },
            },
            y: shareAxis(model.left, 'y'),
            y2: shareAxis(model.right, 'y2'),
            cursor: { drag: { x: false, y: false } },
            plot: {
                hooks: {
                    draw: [(u) => drawSpreads(u, series, spreads), (u) => drawFailed(u, failed)],
                    ready: [
                        (u) => onClick(u, (i) => light(model, pointsAt(model, axis, xs[i]), true)),
                    ],
                },
            },
        },
        signal,
    );
    return made;
}

const pointsOf = (model, axis, x) => model.sweep.points.filter((p) => p.values[axis] === x);
const pointsAt = (model, axis, x) => pointsOf(model, axis, x).map((p) => p.point);

/* A cross at the foot where a point has failed. */
function drawFailed(u, failed) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = getComputedStyle(u.root).getPropertyValue('--danger');
    ctx.lineWidth = 2;
    const y = bbox.top + bbox.height - 10;
    failed.forEach((is, i) => {
        if (!is) return;
        const x = u.valToPos(u.data[0][i], 'x', true);
        ctx.beginPath();
        ctx.moveTo(x - 5, y - 5);
        ctx.lineTo(x + 5, y + 5);
        ctx.moveTo(x - 5, y + 5);
        ctx.lineTo(x + 5, y - 5);
        ctx.stroke();
    });
    ctx.restore();
}

function onClick(u, call) {
    u.over.addEventListener(
        'click',
        () => u.cursor.idx !== null && u.cursor.idx !== undefined && call(u.cursor.idx),
    );
}

/* Whiskers of one standard deviation to both sides. */
function drawSpreads(u, series, spreads) {
    const { ctx } = u;
    ctx.save();
    ctx.lineWidth = 1.25;
    spreads.forEach((list, k) => {
        const { scale } = u.series[k + 1];
        if (!u.series[k + 1].show) return;
        ctx.strokeStyle = color(series[k].color);
        list.forEach((sd, i) => {
            const v = u.data[k + 1][i];
            if (!sd || v === null) return;
            const x = u.valToPos(u.data[0][i], 'x', true);
            const [a, b] = [u.valToPos(v - sd, scale, true), u.valToPos(v + sd, scale, true)];
            ctx.beginPath();
            ctx.moveTo(x, a);
            ctx.lineTo(x, b);
            for (const y of [a, b]) {
                ctx.moveTo(x - 4, y);
                ctx.lineTo(x + 4, y);
            }
            ctx.stroke();
        });
    });
    ctx.restore();
}

/* ---- Parallel coordinates: a line a point, through what varied and what came out ---- */

function parallelCard(model) {
    const { points } = model.sweep;
    const done = points.filter((p) => p.result);
    const varied = Object.keys(points[0]?.values ?? {}).filter(
        (k) => new Set(points.map((p) => JSON.stringify(p.values[k]))).size > 1,
    );
    if (done.length < 2 || !varied.length) return null;
    const columns = [
        ...varied
            .slice(0, 4)
            .map((pointer) => ({ name: axisName(pointer), of: (p) => p.values[pointer] })),
        ...measures
            .slice(0, 5)
            .map(([path, name, share]) => ({ name, share, of: (p) => at(p.result, path) })),
    ].map((c) => ({ ...c, ...columnScale(done.map(c.of), c.share) }));
    const kept = columns.filter((c) => c.useful);
    return h(
        'section.card',
        h(
            'div.card-head',
            h('h2', 'All at once', h('small', 'a line a point, coloured by accuracy')),
        ),
        h(
            'div.scroll',
            { tabindex: 0, role: 'region', 'aria-label': 'Parallel coordinates' },
            drawParallel(kept, done, model),
        ),
    );
}

function columnScale(values, share) {
    const known = values.filter((v) => v !== undefined && v !== null);
    const numeric = known.every((v) => typeof v === 'number');
    const useful = known.length > 0;
    if (!numeric) {
        const names = [...new Set(known.map(String))];
        return {
            useful,
            place: (v) => (names.length > 1 ? names.indexOf(String(v)) / (names.length - 1) : 0.5),
            ends: [names[0], names.at(-1)],
        };
    }
    const scale = makeScale(known);
    const spots = known.map(scale.place);
    const low = Math.min(...spots);
    const high = Math.max(...spots);
    const text = share ? (v) => percent(v) : (v) => number(v, 3);
    return {
        useful,
        place: (v) =>
            v === undefined || v === null
                ? null
                : high > low
                  ? (scale.place(v) - low) / (high - low)
                  : 0.5,
        ends: [text(Math.min(...known)), text(Math.max(...known))],
    };
}

function drawParallel(columns, points, model) {
    const width = Math.max(620, columns.length * 130);
    const height = 210;
    const left = 60;
    const top = 40;
    const bottom = height - 26;
    const x = (i) => left + (i * (width - 2 * left)) / Math.max(1, columns.length - 1);
    const accuracies = points.map((p) => p.result.accuracy ?? 0);
    const [low, high] = [Math.min(...accuracies), Math.max(...accuracies)];
    const lines = points.map((p) => {
        const path = columns
            .map((c, i) => [x(i), c.place(c.of(p))])
            .filter(([, y]) => y !== null && y !== undefined)
            .map(([px, y]) => `${px.toFixed(1)},${(bottom - y * (bottom - top)).toFixed(1)}`)
            .join(' ');
        const strength = high > low ? ((p.result.accuracy ?? 0) - low) / (high - low) : 1;
        const line = svg('polyline', {
            points: path,
            class: 'pline',
            'stroke-opacity': (0.25 + 0.75 * strength).toFixed(2),
        });
        line.addEventListener('pointerenter', () => light(model, [p.point]));
        line.addEventListener('click', () => light(model, [p.point], true));
        model.listeners.push((lit) => line.classList.toggle('lit', lit.includes(p.point)));
        return line;
    });
    const axes = columns.map((c, i) => [
        svg('line', { x1: x(i), x2: x(i), y1: top, y2: bottom, class: 'paxis' }),
        svg('text', { x: x(i), y: 14, class: 'pname' }, c.name),
        svg('text', { x: x(i), y: top - 8, class: 'pend' }, c.ends[1]),
        svg('text', { x: x(i), y: bottom + 16, class: 'pend' }, c.ends[0]),
    ]);
    return svg(
        'svg',
        {
            viewBox: `0 0 ${width} ${height}`,
            class: 'parallel',
            role: 'img',
            'aria-label': `Parallel coordinates of ${points.length} points`,
        },
        axes,
        lines,
    );
}

/* ---- The table ---- */

/** Marks points in the figure and the table; jump: brings the first one into view. */
function light(model, points, jump = false) {
    model.lit = points;
    const lit = points ?? [];
    model.listeners.forEach((f) => f(lit));
    for (const row of model.table.querySelectorAll('tr[data-point]')) {
        const on = lit.includes(Number(row.dataset.point));
        row.classList.toggle('lit', on);
        if (on && jump && Number(row.dataset.point) === lit[0]) {
            row.scrollIntoView({ block: 'center', behavior: 'smooth' });
            row.querySelector('a')?.focus({ preventScroll: true });
        }
    }
}

function pointTable(model, onsort) {
    const { points, repeats, axes } = model.sweep;
    const pointers = axes?.length
        ? axes
        : [...new Set(points.flatMap((p) => Object.keys(p.values)))];
    const columns = [
        { text: 'Point', key: 'point' },
        ...pointers.map((p) => ({ text: axisName(p), key: `values${p}`, number: true, title: p })),
        ...measures.slice(0, 5).map(([path, name]) => ({ text: name, key: path, number: true })),
        { text: repeats > 1 ? 'Experiments' : 'Experiment' },
    ];
    const down = model.sort.startsWith('-');
    const key = down ? model.sort.slice(1) : model.sort;
    const valueOf = (p) =>
        key === 'point'
            ? p.point
            : key.startsWith('values')
              ? p.values[key.slice(6)]
              : at(p.result ?? {}, key);
    const sorted = key
        ? [...points].sort((a, b) => order(valueOf(a), valueOf(b)) * (down ? -1 : 1))
        : points;
    const best = bestPoint(points);
    const rows = sorted.map((p) =>
        h(
            'tr',
            { 'data-point': p.point, onpointerenter: () => light(model, [p.point]) },
            h('td', p.point, p === best && [' ', h('span.badge.succeeded', 'best')]),
            pointers.map((pointer) => h('td.n', specValue(p.values[pointer]))),
            p.error && !p.result
                ? h('td.wrap', { colspan: 5 }, h('span.fault', p.error.detail))
                : measures.slice(0, 5).map(([path, , share]) => h('td.n', spread(p, path, share))),
            h(
                'td',
                p.experiments.map((x, i) => [
                    i > 0 && ' ',
                    h(
                        'a',
                        {
                            href: `#/experiments/${x.id}`,
                            title: x.id,
                            'aria-label': `Experiment of point ${p.point}${repeats > 1 ? `, seed ${i + 1}` : ''}, ${x.state}`,
                        },
                        badge(x.state),
                    ),
                ]),
            ),
        ),
    );
    return h(
        'section.card.flush',
        table(columns, rows, { caption: 'Points', sort: model.sort, onsort }),
    );
}

function order(a, b) {
    if (a === undefined || a === null) return 1;
    if (b === undefined || b === null) return -1;
    return typeof a === 'number' && typeof b === 'number'
        ? a - b
        : String(a).localeCompare(String(b));
}

function spread(p, path, share) {
    const value = at(p.result ?? {}, path);
    const sd = at(p.sd ?? {}, path);
    const text = share ? percent(value, 2) : number(value);
    if (sd === undefined || sd === null || value === undefined) return text;
    return [text, h('small.muted', ` ± ${share ? (100 * sd).toFixed(2) : number(sd, 2)}`)];
}
