/** The curves of an experiment: which figures go together, and their charts. */

import { chart, dashAt, percentAxis } from './charts.js';
import { fill, h } from './dom.js';
import { at, duration, number, percent } from './format.js';
import { empty, segmented } from './widgets.js';

const terms = [
    'ovr',
    'activity',
    'cross_entropy',
    'reconstruction',
    'distortion',
    'l1',
    'kl',
    'contractive',
    'l2',
];
const termNames = {
    ovr: 'λ·OVR',
    activity: 'activity',
    cross_entropy: 'cross-entropy',
    reconstruction: 'reconstruction',
    distortion: 'distortion',
    l1: 'ℓ1',
    kl: 'KL',
    contractive: 'contractive',
    l2: 'ℓ2',
};
const splits = ['train', 'validation', 'test'];

const share = (u, v) => percent(v, 2);

/** Ticks of seconds, all in one unit, so that neighbours differ. */
export function durationTicks(splits) {
    const most = Math.max(...splits);
    const [scale, unit] = most < 1e-3 ? [1e6, 'µs'] : most < 1 ? [1e3, 'ms'] : [1, 's'];
    return splits.map((v) => {
        if (v === null) return '';
        return most < 100 || v === 0 ? `${number(v * scale, 3)} ${unit}` : duration(v);
    });
}

/**
 * Charts by name: lines are [path into an epoch, label]. Those of which no epoch has anything are
 * left out, charts without lines too.
 */
export const groups = [
    { title: 'Loss J', lines: splits.map((s) => [`${s}.loss`, s]), log: true },
    {
        title: 'Terms of J',
        note: 'watched split',
        lines: ['validation', 'test'].flatMap((s) => terms.map((t) => [`${s}.${t}`, termNames[t]])),
        log: true,
        skipZero: true,
    },
    { title: 'Accuracy', lines: splits.map((s) => [`${s}.accuracy`, s]), share: true },
    {
        title: 'Sparsity',
        note: 'share of activations',
        lines: [
            ['sparsity.near_zero', '|h| < 0.1'],
            ['sparsity.zero', 'exactly 0'],
        ],
        share: true,
    },
    {
        title: 'Sparsity of layers below',
        lines: Array.from({ length: 8 }, (_, i) => [
            `layers.${i}.near_zero`,
            `layer ${i + 1}, |h| < 0.1`,
        ]),
        share: true,
    },
    {
        title: 'Overlap',
        note: 'mean cosine of two codes',
        lines: [['sparsity.overlap', 'overlap']],
    },
    {
        title: 'Sparsity of a code',
        lines: [
            ['sparsity.over_samples.hoyer', 'Hoyer'],
            ['sparsity.over_samples.treves_rolls', 'Treves–Rolls'],
            ['sparsity.over_samples.gini', 'Gini'],
        ],
    },
    {
        title: 'Active units',
        note: 'per sample',
        lines: [
            ['sparsity.active_units.mean', 'mean'],
            ['sparsity.active_units.min', 'min'],
            ['sparsity.active_units.max', 'max'],
        ],
    },
    {
        title: 'Dead units, silent samples',
        lines: [
            ['sparsity.dead_units', 'dead units'],
            ['sparsity.zero_codes', 'samples without code'],
        ],
        counts: true,
    },
    { title: 'Mean activation', lines: [['sparsity.mean_activation', 'mean h']] },
    { title: 'Learning rate', lines: [['learning_rate', 'rate']], log: true, startLog: true },
    {
        title: 'Bias',
        lines: [
            ['bias.quartile_1', 'quartile 1'],
            ['bias.median', 'median'],
            ['bias.quartile_3', 'quartile 3'],
        ],
    },
    {
        title: 'Share in the gradient',
        note: 'first step of the epoch',
        lines: terms.map((t) => [`gradient.${t}`, termNames[t]]),
        share: true,
    },
    {
        title: 'Direction of OVR',
        note: 'cosine to the inputs',
        lines: [['direction.cosine', 'cosine']],
    },
    {
        title: 'Time of an epoch',
        note: 'with its evaluation',
        lines: [['seconds', 'time']],
        text: (u, v) => duration(v),
        axis: { values: (u, splits) => durationTicks(splits) },
    },
];

/** Lines of a group that there is something of, by a look at some of the epochs. */
export function linesOf(group, series) {
    const step = Math.ceil(series.length / 16) || 1;
    const some = series.filter((e, i) => i % step === 0);
    return group.lines.filter(([path]) =>
        some.some((e) => {
            const v = at(e, path);
            return v !== undefined && v !== null && !(group.skipZero && v === 0);
        }),
    );
}

/** The axis of a group: shares in per cent, counts from zero up to something. */
export const yOf = (group) => ({
    axis: group.share ? percentAxis : group.axis,
    scale: group.counts ? { range: (u, low, high) => [0, Math.max(4, high * 1.08)] } : {},
});

export const column = (series, path) => series.map((e) => at(e, path) ?? null);

/** A chart of one group in a card of its own. */
export function curveCard(group, made, scales) {
    const head = h('div.card-head', h('h2', group.title, group.note && h('small', group.note)));
    if (group.log) {
        const start = scales.get(group.title) ?? (group.startLog ? 'log' : 'linear');
        head.append(
            segmented(
                `Axis of ${group.title}`,
                [
                    ['linear', 'lin'],
                    ['log', 'log'],
                ],
                start,
                (v) => {
                    scales.set(group.title, v);
                    made.setScale(v);
                },
            ),
        );
    }
    return h('section.card', head, made.element);
}

export const startScale = (group, scales) =>
    scales.get(group.title) ?? (group.startLog ? 'log' : 'linear');

/** A vertical line at the best epoch. */
function bestLine(model) {
    return (u) => {
        const best = model.experiment.result?.best_epoch;
        if (best) dashAt(u, best);
    };
}

/** Fills the panel with all curves, and keeps them up to date. */
export function curves(panel, model, signal) {
    const scales = new Map();
    let charts = [];
    let shown = '';
    let inner = new AbortController();
    signal.addEventListener('abort', () => inner.abort());

    function build() {
        inner.abort();
        inner = new AbortController();
        charts = groups
            .map((group) => ({ group, lines: linesOf(group, model.series) }))
            .filter(({ lines }) => lines.length)
            .map(({ group, lines }) => ({ group, lines, chart: makeChart(group, lines) }));
        const best = model.experiment.result?.best_epoch;
        fill(
            panel,
            charts.length
                ? [
                      h(
                          'div.grid',
                          charts.map((c) => curveCard(c.group, c.chart, scales)),
                      ),
                      best > 0 &&
                          h(
                              'p.muted',
                              `The dashed line is the best epoch, ${best}. Drag over a chart to zoom, double-click to see all.`,
                          ),
                  ]
                : nothing(model.experiment),
        );
    }
    function makeChart(group, lines) {
        return chart(
            {
                label: `${group.title} over the epochs`,
                series: lines.map(([, label], i) => ({
                    label,
                    color: i,
                    text: group.share ? share : group.text,
                })),
                data: dataOf(lines),
                sync: 'epochs',
                whole: true,
                scale: startScale(group, scales),
                y: yOf(group),
                plot: { hooks: { draw: [bestLine(model)] } },
            },
            inner.signal,
        );
    }
    const dataOf = (lines) => [
        model.series.map((e) => e.epoch),
        ...lines.map(([path]) => column(model.series, path)),
    ];

    function update(what) {
        if (what === 'progress') return;
        const now = `${groups.map((g) => linesOf(g, model.series).length)} ${model.experiment.result?.best_epoch} ${model.experiment.state}`;
        if (now !== shown) {
            shown = now;
            return build();
        }
        if (what === 'series') charts.forEach((c) => c.chart.set(dataOf(c.lines)));
    }
    model.on(update);
    update('series');
}

function nothing(e) {
    if (e.state === 'queued')
        return empty('It has not started', e.queue?.reason ? `It waits: ${e.queue.reason}.` : null);
    if (e.state === 'running')
        return empty('No epoch has ended yet', 'The first curve comes with the first epoch.');
    return empty(
        'No curves',
        e.state === 'succeeded'
            ? 'This kind of model is not trained in epochs.'
            : 'It ended before its first epoch did.',
    );
}
