/** Charts: uPlot (vendor/) in the colours of the theme, as wide as their box. */

import uPlot from './uPlot.esm.js';
import { h } from './dom.js';
import { number } from './format.js';

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const N_COLORS = 8;
/** The colour of the i-th series as the theme has it. */
export const color = (i) => css(`--c${(i % N_COLORS) + 1}`);

const themes = new EventTarget();
export const themeChanged = () => themes.dispatchEvent(new Event('change'));

/** Calls back when the theme changes, until the signal. */
export const onTheme = (call, signal) => themes.addEventListener('change', call, { signal });

const font = () => `11px ${css('--font')}`;

function axis(side, extra) {
    return {
        side,
        stroke: css('--muted'),
        font: font(),
        grid: { stroke: css('--grid'), width: 1 },
        ticks: { stroke: css('--grid'), width: 1, size: 4 },
        gap: 4,
        values: (u, splits) => splits.map((v) => (v === null ? '' : number(v, 3))),
        ...extra,
    };
}

/* Room for the widest label. */
const labelRoom = (u, values) =>
    16 + 6.6 * Math.max(3, ...(values ?? []).map((v) => String(v).length));

/**
 * @typedef {Object} Series
 * @property {string} label
 * @property {number} [color] index; by default its place
 * @property {boolean} [dashed]
 * @property {boolean} [points] a dot at every point
 * @property {boolean} [stepped] flat from each x to the next
 * @property {'y'|'y2'} [scale]
 * @property {(u: uPlot, value: number) => string} [text] its value in the legend
 */

/**
 * @typedef {Object} Chart
 * @property {HTMLElement} element
 * @property {(data: number[][]) => void} set x values, then those of each series
 * @property {(scale: 'log'|'linear') => void} setScale of y
 */

/**
 * @param {Object} options
 * @param {string} options.label what it shows, for those who can't see it
 * @param {Series[]} options.series
 * @param {number[][]} options.data
 * @param {string} [options.xLabel] name of x in the legend
 * @param {string} [options.sync] charts of one key share their cursor
 * @param {boolean} [options.whole] x are epochs: whole numbers, of which the last is shown without a cursor
 * @param {Object} [options.x] uPlot scale and axis of x
 * @param {Object} [options.plot] more uPlot options (hooks, bands, cursor)
 * @param {AbortSignal} signal
 * @returns {Chart}
 */
export function chart(options, signal) {
    const box = h('div.chart', { role: 'img', 'aria-label': options.label });
    let { data } = options;
    let scale = options.scale ?? 'linear';
    let plot = null;

    function build() {
        const width = Math.floor(box.clientWidth);
        if (!width) return;
        plot?.destroy();
        plot = new uPlot(makeOptions(options, width, scale), visibleData(), box);
    }
    /* A logarithm has no place for zero: such a point is a gap. */
    const visibleData = () =>
        scale === 'log'
            ? data.map((values, i) => (i ? values.map((v) => (v > 0 ? v : null)) : values))
            : data;

    const observer = new ResizeObserver(() => {
        const width = Math.floor(box.clientWidth);
        if (!width) return;
        if (plot) plot.setSize({ width, height: options.height ?? 200 });
        else build();
    });
    observer.observe(box);
    onTheme(build, signal);
    signal.addEventListener('abort', () => {
        observer.disconnect();
        plot?.destroy();
    });
    return {
        element: box,
        plot: () => plot,
        set(values) {
            data = values;
            plot?.setData(visibleData());
        },
        setScale(name) {
            scale = name;
            build();
        },
    };
}

/* Lines of a logarithmic axis at powers of ten only. */
const decades = (u, splits) =>
    splits.map((v) => (Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9 ? v : null));

function makeOptions(options, width, scale) {
    const { series, xLabel = 'epoch', sync, x = {}, height = 200, plot = {}, y = {}, y2 } = options;
    const log = scale === 'log';
    const scales = {
        x: { time: false, ...x.scale },
        y: { distr: log ? 3 : 1, ...(log ? {} : y.scale) },
    };
    const line = { stroke: css('--grid'), width: 1, filter: decades };
    const quiet = log ? { grid: line, ticks: { ...line, size: 4 } } : {};
    const axes = [
        axis(2, {
            size: 28,
            incrs: options.whole
                ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000]
                : undefined,
            ...x.axis,
        }),
        axis(3, { size: labelRoom, ...quiet, ...y.axis }),
    ];
    if (y2) {
        scales.y2 = { ...y2.scale };
        axes.push(axis(1, { scale: 'y2', size: labelRoom, grid: { show: false }, ...y2.axis }));
    }
    return {
        width,
        height,
        scales,
        axes,
        legend: { live: true, ...(options.legend ?? {}) },
        cursor: {
            y: false,
            points: { size: 7 },
            sync: sync ? { key: sync } : undefined,
            drag: { x: true, y: false },
            ...options.cursor,
        },
        series: [
            {
                label: xLabel,
                value: (u, v, si, i) =>
                    textOf((plot, value) => number(value), options.whole, u, v, si, i),
                ...x.series,
            },
            ...series.map((s, i) => makeSeries(s, i, options.whole)),
        ],
        ...plot,
    };
}

function makeSeries(s, i, last) {
    const stroke = s.stroke ?? color(s.color ?? i);
    return {
        label: s.label,
        scale: s.scale ?? 'y',
        stroke,
        width: s.width ?? 1.75,
        dash: s.dashed ? [5, 4] : undefined,
        spanGaps: true,
        points: {
            show: s.points ?? undefined,
            size: s.pointSize ?? 5,
            fill: stroke,
            ...s.pointOptions,
        },
        paths: s.stepped ? uPlot.paths.stepped({ align: 1 }) : s.paths,
        fill: s.fill,
        value: (u, v, si, i) => textOf(s.text ?? ((plot, x) => number(x)), last, u, v, si, i),
        show: s.show ?? true,
    };
}

/* Where the cursor is; without one the last value, of series over epochs. */
function textOf(text, last, u, v, si, i) {
    if (last && (i === null || i === undefined))
        v = u.data[si].findLast((x) => x !== null && x !== undefined);
    return v === null || v === undefined ? '–' : text(u, v);
}

/** A dashed vertical line at a value of x, where that is in sight. */
export function dashAt(u, value) {
    const x = Math.round(u.valToPos(value, 'x', true)) + 0.5;
    const { ctx, bbox } = u;
    if (x < bbox.left || x > bbox.left + bbox.width) return;
    ctx.save();
    ctx.strokeStyle = getComputedStyle(u.root).getPropertyValue('--line-strong');
    ctx.setLineDash([3, 4]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
}

/** Bars for histograms, each from its x to the next. */
export const bars = () => uPlot.paths.bars({ size: [0.94, 200], align: 1 });

/** Shares with a per-cent axis. */
export const percentAxis = {
    values: (u, splits) => splits.map((v) => (v === null ? '' : `${number(100 * v, 5)} %`)),
};

/** The i-th of any number of colours, far from those before it. */
export function distinctColor(i, dark) {
    const hue = (i * 137.508) % 360;
    const light = (dark ? 50 : 56) + ((i * 7) % 3) * 8;
    return `hsl(${hue.toFixed(1)} ${dark ? 52 : 58}% ${light}%)`;
}

export const isDark = () => css('--is-dark') === '1';
