/** Several experiments over each other: figures, curves, histograms and their distance, specs. */

import { get, getPage } from './api.js';
import { chart, percentAxis } from './charts.js';
import { column, curveCard, groups, startScale, yOf } from './curves.js';
import { fill, h } from './dom.js';
import { at, count, duration, leaves, number, percent, specValue } from './format.js';
import { binAxis, binName, nearZeroLine, usedBins } from './histogram.js';
import { href } from './router.js';
import { badge, button, empty, linkButton, load, pageHead, select, table } from './widgets.js';

const MOST = 12;
const POINTS = 1000;
const MATRIX_MOST = 6;

const figures = [
    ['accuracy', 'Accuracy', (v) => percent(v, 2), 1],
    ['sparsity.near_zero', 'Near zero', (v) => percent(v, 2), 1],
    ['sparsity.zero', 'Exactly zero', (v) => percent(v, 2), 1],
    ['sparsity.overlap', 'Overlap', number, -1],
    ['sparsity.dead_units', 'Dead units', count, -1],
    ['sparsity.over_samples.hoyer', 'Hoyer', number, 1],
    ['test.loss', 'Loss J (test)', number, 0],
    ['best_epoch', 'Best epoch', count, 0],
    ['seconds', 'Time', duration, 0],
];

/* What the watched split is called differs between protocols. */
const watched = (path) => (e) => at(e, `validation.${path}`) ?? at(e, `test.${path}`) ?? null;
const plain = (path) => (e) => at(e, path) ?? null;
const compared = [
    { ...groups[0], note: 'watched split', of: watched('loss') },
    { title: 'Loss J, training', log: true, of: plain('train.loss') },
    { title: 'Accuracy', note: 'watched split', share: true, of: watched('accuracy') },
    { title: 'Near zero', note: '|h| < 0.1', share: true, of: plain('sparsity.near_zero') },
    { title: 'Exactly zero', share: true, of: plain('sparsity.zero') },
    { title: 'Overlap', note: 'mean cosine of two codes', of: plain('sparsity.overlap') },
    { title: 'Dead units', counts: true, of: plain('sparsity.dead_units') },
    { title: 'Hoyer', note: 'mean over the samples', of: plain('sparsity.over_samples.hoyer') },
    { title: 'Mean activation', of: plain('sparsity.mean_activation') },
    { title: 'Learning rate', log: true, startLog: true, of: plain('learning_rate') },
];

/** @param {import('./router.js').Context} context */
export async function show({ root, query, signal }) {
    const ids = [...new Set((query.get('ids') ?? '').split(',').filter(Boolean))].slice(0, MOST);
    const [runs, recent] = await Promise.all([
        readRuns(ids, signal),
        getPage('/v1/experiments?limit=100', signal),
    ]);
    const others = recent.data.experiments.filter((e) => !ids.includes(e.id));
    const go = (list) => (location.hash = href('/compare', { ids: list.join(',') }));
    const add = select(
        [['', 'Add an experiment …'], ...others.map((e) => [e.id, `${e.name} (${e.state})`])],
        '',
        (id) => id && go([...ids, id]),
        { 'aria-label': 'Add an experiment' },
    );
    fill(root, pageHead('Compare', { actions: ids.length < MOST && add }));
    const gone = ids.filter((id) => !runs.some((r) => r.id === id));
    if (gone.length)
        root.append(h('p.notice', `Not there, or not for you to see: ${gone.join(', ')}.`));
    if (runs.length < 2) {
        root.append(
            h(
                'div.card',
                empty(
                    'Choose at least two experiments',
                    'Add them here, or tick them in the list of experiments.',
                    linkButton('To the list', '#/experiments', 'list'),
                ),
            ),
        );
        return;
    }
    const scales = new Map();
    root.append(
        resultTable(runs, (id) => go(ids.filter((i) => i !== id))),
        h('div.grid', curveCards(runs, scales, signal)),
        h('section', histograms(runs, signal)),
        specTable(runs),
    );
}

async function readRuns(ids, signal) {
    const read = async (id, i) => {
        const path = `/v1/experiments/${encodeURIComponent(id)}`;
        const experiment = await get(path, signal);
        const { series } = await get(`${path}/metrics?max_points=${POINTS}`, signal);
        return { id, experiment, series, color: i, label: experiment.name };
    };
    const settled = await Promise.allSettled(ids.map(read));
    const runs = settled.filter((s) => s.status === 'fulfilled').map((s) => s.value);
    const refused = settled.find((s) => s.status === 'rejected' && s.reason.status !== 404);
    if (refused) throw refused.reason;
    return distinguish(runs);
}

/** Runs of one name are told apart by what differs in their specs. */
function distinguish(runs) {
    const names = runs.map((r) => r.label);
    const fields = differingFields(runs.map((r) => r.experiment.spec)).filter(
        (p) => !/^\/(name|notes|tags)/.test(p),
    );
    for (const run of runs)
        if (names.filter((n) => n === run.experiment.name).length > 1) {
            const all = new Map(leaves(run.experiment.spec));
            run.label = `${run.experiment.name} (${
                fields.length
                    ? fields
                          .slice(0, 2)
                          .map((p) => specValue(all.get(p)))
                          .join(', ')
                    : run.id
            })`;
        }
    return runs;
}

/** Pointers of the fields that are not the same in all specs. */
export function differingFields(specs) {
    const maps = specs.map((s) => new Map(leaves(s)));
    const all = [...new Set(maps.flatMap((m) => [...m.keys()]))];
    return all.filter((p) => new Set(maps.map((m) => JSON.stringify(m.get(p)))).size > 1);
}

const key = (run) => h(`span.key.k${(run.color % 8) + 1}`);
const runLink = (run) => [key(run), h('a', { href: `#/experiments/${run.id}` }, run.label)];

function resultTable(runs, remove) {
    const columns = [
        { text: 'Experiment' },
        { text: 'State' },
        ...figures.map(([, text]) => ({ text, number: true })),
        { text: '' },
    ];
    const best = figures.map(([path, , , sign]) => {
        const values = runs
            .map((r) => at(r.experiment.result ?? {}, path))
            .filter((v) => v !== undefined && v !== null);
        return sign && values.length > 1
            ? sign > 0
                ? Math.max(...values)
                : Math.min(...values)
            : null;
    });
    const rows = runs.map((r) =>
        h(
            'tr',
            h('td', runLink(r)),
            h('td', badge(r.experiment.state)),
            figures.map(([path, , format], i) => {
                const v = at(r.experiment.result ?? {}, path);
                return h(
                    'td.n',
                    v !== undefined && v === best[i] ? h('strong', format(v)) : format(v),
                );
            }),
            h(
                'td',
                button('', {
                    name: 'close',
                    kind: 'small',
                    title: `Leave ${r.label} out`,
                    'aria-label': `Leave ${r.label} out`,
                    onclick: () => remove(r.id),
                }),
            ),
        ),
    );
    return h('div.card.flush', table(columns, rows, { caption: 'Results on the test split' }));
}

function curveCards(runs, scales, signal) {
    return compared.map((group) => {
        const with_ = runs.filter((r) => r.series.some((e) => group.of(e) !== null));
        if (!with_.length) return null;
        const epochs = [...new Set(with_.flatMap((r) => column(r.series, 'epoch')))].sort(
            (a, b) => a - b,
        );
        const lines = with_.map((r) => {
            const by = new Map(r.series.map((e) => [e.epoch, group.of(e)]));
            return epochs.map((x) => by.get(x) ?? null);
        });
        const made = chart(
            {
                label: `${group.title} of ${with_.length} experiments`,
                series: with_.map((r) => ({
                    label: r.label,
                    color: r.color,
                    text: group.share ? (u, v) => percent(v, 2) : undefined,
                })),
                data: [epochs, ...lines],
                sync: 'compare',
                whole: true,
                scale: startScale(group, scales),
                y: yOf(group),
            },
            signal,
        );
        return curveCard(group, made, scales);
    });
}

/* ---- Histograms ---- */

function histograms(runs, signal) {
    const box = h('div');
    load(
        box,
        async () => {
            const settled = await Promise.allSettled(
                runs.map((r) => get(`/v1/experiments/${r.id}/histogram`, signal)),
            );
            const shown = runs
                .map((run, i) => ({ run, histogram: settled[i].value }))
                .filter((s) => s.histogram);
            if (!shown.length)
                return h(
                    'section.card',
                    empty('No histograms yet', 'The first comes with the first epoch.'),
                );
            return h(
                'div.split',
                overlay(shown, signal),
                shown.length > 1 &&
                    distances(
                        shown.slice(0, MATRIX_MOST).map((s) => s.run),
                        signal,
                    ),
            );
        },
        signal,
    );
    return box;
}

function overlay(shown, signal) {
    const { edges } = shown.reduce((a, b) =>
        b.histogram.edges.length > a.histogram.edges.length ? b : a,
    ).histogram;
    const bins = usedBins(shown.map((s) => s.histogram.counts));
    const made = chart(
        {
            label: 'Histograms of the activations that are not zero',
            xLabel: '|h|',
            height: 260,
            series: shown.map(({ run }) => ({
                label: run.label,
                color: run.color,
                stepped: true,
                text: (u, v) => percent(v, 2),
            })),
            data: [
                Array.from({ length: bins }, (_, i) => i),
                ...shown.map(({ histogram: g }) =>
                    Array.from({ length: bins }, (_, i) => (g.counts[i] ?? 0) / g.total),
                ),
            ],
            x: {
                scale: { range: [0, bins] },
                axis: binAxis(edges, bins),
                series: { value: binName(edges) },
            },
            y: { axis: percentAxis },
            plot: { hooks: { draw: [nearZeroLine(edges)] } },
            cursor: { drag: { x: false, y: false } },
        },
        signal,
    );
    const columns = [
        { text: 'Experiment' },
        { text: 'Exactly 0', number: true },
        { text: 'Maximum', number: true },
    ];
    const rows = shown.map(({ run, histogram: g }) =>
        h(
            'tr',
            h('td', runLink(run)),
            h('td.n', percent(g.zero_count / g.total, 2)),
            h('td.n', number(g.maximum)),
        ),
    );
    return h(
        'section.card',
        h(
            'div.card-head',
            h(
                'h2',
                'Activations |h|',
                h('small', 'share of all; exact zeros in the table; dashed: 0.1'),
            ),
        ),
        made.element,
        table(columns, rows, { caption: 'Exact zeros' }),
    );
}

function distances(runs, signal) {
    const box = h('div');
    load(
        box,
        async () => {
            const pairs = runs.flatMap((a, i) => runs.slice(i + 1).map((b) => [a, b]));
            const found = await Promise.all(
                pairs.map(([a, b]) => get(`/v1/compare/histograms?a=${a.id}&b=${b.id}`, signal)),
            );
            const columns = [
                { text: 'Between' },
                { text: 'and' },
                { text: 'KS', number: true, title: 'Kolmogorov–Smirnov: max |F_a − F_b|' },
                {
                    text: 'Wasserstein',
                    number: true,
                    title: '∫ |F_a − F_b|, in units of activation',
                },
            ];
            const rows = pairs.map(([a, b], i) =>
                h(
                    'tr',
                    h('td', runLink(a)),
                    h('td', runLink(b)),
                    h('td.n', number(found[i].ks)),
                    h('td.n', number(found[i].wasserstein)),
                ),
            );
            return table(columns, rows, { caption: 'Distances of the histograms' });
        },
        signal,
    );
    return h(
        'section.card',
        h(
            'div.card-head',
            h(
                'h2',
                'Distance of the histograms',
                h('small', 'Kolmogorov–Smirnov and Wasserstein, zeros included'),
            ),
        ),
        box,
    );
}

/* ---- Specs ---- */

function specTable(runs) {
    const fields = differingFields(runs.map((r) => r.experiment.spec)).filter(
        (p) => p !== '/name' && p !== '/notes',
    );
    if (!fields.length) return h('section.card', h('p.muted', 'The specs are the same.'));
    const maps = runs.map((r) => new Map(leaves(r.experiment.spec)));
    const columns = [{ text: 'Field' }, ...runs.map((r) => ({ text: r.label }))];
    const rows = fields.map((p) =>
        h(
            'tr',
            h('td', h('code', p.slice(1).replaceAll('/', '.'))),
            maps.map((m) => h('td', specValue(m.get(p)))),
        ),
    );
    return h(
        'section.card.flush',
        h('div.card-pad', h('h2', 'What differs in the specs')),
        table(columns, rows, { caption: 'Differing fields' }),
    );
}
