/** Histograms of activations over the epochs; exact zeros stand apart, since no bin can show them. */

import { get, isFinal, nap } from './api.js';
import { bars, chart, color, dashAt, onTheme } from './charts.js';
import { fill, h, icon, setText } from './dom.js';
import { count, number, percent } from './format.js';
import { empty, problemBox, segmented } from './widgets.js';

const MOST = 500;
const EVERY_MS = 2000;

/** Bins up to the last one that any of the lists of counts uses. */
export function usedBins(lists) {
    let n = 1;
    for (const counts of lists) for (let i = counts.length; i > n; i--) if (counts[i - 1]) n = i;
    return n;
}

/** Ticks of an axis whose unit is a bin: at 0 and at doublings around 0.1. */
export function binAxis(edges, n) {
    const pivot = edges.indexOf(0.1);
    const ticks = (step) => {
        const at = [0];
        for (let i = pivot % step; i <= n; i += step) if (i > step / 2) at.push(i);
        return at;
    };
    return {
        splits: (u) => ticks(n * 12 > u.width ? 8 : 4),
        values: (u, splits) => splits.map((i) => number(edges[i], 3)),
    };
}

/** The name of a bin, for the legend. */
export const binName = (edges) => (u, i) =>
    i === null ? '–' : `${number(edges[i], 3)} … ${number(edges[i + 1], 3)}`;

/** A line at |h| = 0.1, below which "near zero" is. */
export const nearZeroLine = (edges) => (u) => dashAt(u, edges.indexOf(0.1));

export function histogramPanel(panel, model, signal) {
    const e = model.experiment;
    const layers = (e.spec.model.hidden ?? [0]).map((_, i) => [`hidden.${i}`, `Layer ${i + 1}`]);
    let layer = layers.at(-1)[0];
    let data = null; /* the series, or with one point the result's */
    let split = 'watched';
    let atEnd = true;
    let view = null;
    let inner = new AbortController();
    signal.addEventListener('abort', () => inner.abort());

    const range = h('input', {
        type: 'range',
        min: 0,
        max: 0,
        value: 0,
        'aria-label': 'Epoch',
        oninput: () => moved(),
    });
    const output = h('output');
    const play = h(
        'button.button',
        { type: 'button', 'aria-label': 'Play the epochs', onclick: () => playAll() },
        icon('play'),
    );
    const slider = h('div.slider', play, range, output);
    const choices = h('div.toolbar');
    const box = h('div.stack');
    fill(panel, choices, box);

    function showChoices() {
        fill(
            choices,
            layers.length > 1 && segmented('Layer', layers, layer, (v) => read((layer = v))),
            model.experiment.state === 'succeeded' &&
                segmented(
                    'Split',
                    [
                        ['watched', 'Over the epochs'],
                        ['test', 'Result, test split'],
                    ],
                    split,
                    (v) => read((split = v)),
                ),
            slider,
        );
    }

    async function read() {
        const path = `/v1/experiments/${e.id}`;
        try {
            if (split === 'test') {
                const one = await get(`${path}/histogram?split=test&layer=${layer}`, signal);
                data = { edges: one.edges, split: 'test', series: [{ ...one, epoch: 'best' }] };
            } else data = await get(`${path}/histograms?max_points=${MOST}&layer=${layer}`, signal);
        } catch (error) {
            if (signal.aborted) return;
            if (error.status === 404) data = { series: [] };
            else return void fill(box, problemBox(error, read));
        }
        show();
    }

    function show() {
        const n = data.series.length;
        slider.hidden = n < 2;
        if (!n)
            return void fill(
                box,
                empty(
                    'No histogram yet',
                    isFinal(model.experiment.state)
                        ? 'It ended before its first epoch did.'
                        : 'The first one comes with the first epoch.',
                ),
            );
        range.max = n - 1;
        if (atEnd) range.value = n - 1;
        const bins = usedBins(data.series.map((s) => s.counts));
        if (!view || view.bins !== bins || view.split !== split || view.layer !== layer)
            build(bins);
        else view.map.draw();
        moved();
    }

    function build(bins) {
        inner.abort();
        inner = new AbortController();
        const { edges } = data;
        const point = data.series[Number(range.value)];
        const made = chart(
            {
                label: 'Histogram of the activations that are not zero',
                xLabel: '|h|',
                height: 300,
                series: [
                    {
                        label: 'activations',
                        color: 0,
                        fill: color(0),
                        width: 0,
                        points: false,
                        paths: bars(),
                        pointOptions: { show: false },
                        text: (u, v) =>
                            v === null ? '–' : `${count(v)} (${percent(v / view.total, 2)})`,
                    },
                ],
                data: rowsOf(point, bins),
                x: {
                    scale: { range: [0, bins] },
                    axis: binAxis(edges, bins),
                    series: { value: binName(edges) },
                },
                y: { scale: { range: (u, low, high) => [0, Math.max(1, high) * 1.05] } },
                plot: { hooks: { draw: [nearZeroLine(edges)] } },
                cursor: { drag: { x: false, y: false } },
            },
            inner.signal,
        );
        const zero = zeroBar();
        const map = heatMap((i) => {
            range.value = i;
            moved();
        }, inner.signal);
        view = { bins, split, layer, made, zero, map, total: point.total };
        fill(
            box,
            h(
                'section.card',
                h(
                    'div.card-head',
                    h(
                        'h2',
                        'Activations |h|',
                        h(
                            'small',
                            `${data.split} split; bins double every four; dashed: 0.1, below it counts as near zero`,
                        ),
                    ),
                ),
                h('div.histogram', zero.element, made.element),
            ),
            data.series.length > 1 &&
                h(
                    'section.card',
                    h(
                        'div.card-head',
                        h(
                            'h2',
                            'Over the epochs',
                            h(
                                'small',
                                'share of all activations: the stronger the colour, the more; click to go there',
                            ),
                        ),
                    ),
                    map.element,
                ),
        );
    }

    const rowsOf = (point, bins) => [
        Array.from({ length: bins }, (_, i) => i),
        point.counts.slice(0, bins),
    ];

    function moved() {
        const i = Number(range.value);
        const point = data.series[i];
        if (!point) return;
        atEnd = i === data.series.length - 1;
        const name = point.epoch === 'best' ? 'best epoch' : `epoch ${point.epoch}`;
        setText(output, name);
        range.setAttribute('aria-valuetext', name);
        view.total = point.total;
        view.made.set(rowsOf(point, view.bins));
        view.zero.set(point);
        view.map.mark(i);
    }

    let playing = null;
    async function playAll() {
        if (playing) return playing.abort();
        playing = new AbortController();
        signal.addEventListener('abort', () => playing?.abort());
        fill(play, icon('pause'));
        const n = data.series.length;
        const step = Math.max(1, Math.round(n / 100));
        for (let i = 0; i < n && !playing.signal.aborted; i += step) {
            range.value = i;
            moved();
            await nap(Math.max(40, 4000 / n), playing.signal);
        }
        playing = null;
        fill(play, icon('play'));
    }

    function heatMap(onpick, mapSignal) {
        const canvas = h('canvas', {
            role: 'img',
            'aria-label': 'Histograms over the epochs',
            width: 10,
            height: 150,
        });
        const element = h('div.heat', canvas);
        let marked = 0;
        let image = null;
        function draw() {
            const width = element.clientWidth;
            if (!width) return;
            const { series } = data;
            const bins = usedBins(series.map((s) => s.counts));
            image = paint(series, bins);
            canvas.width = width;
            show();
        }
        /* A column an epoch, a row a bin, the largest on top. */
        function paint(series, bins) {
            const small = document.createElement('canvas');
            small.width = series.length;
            small.height = bins;
            const ctx = small.getContext('2d');
            const most = Math.max(...series.map((s) => Math.max(...s.counts) / s.total));
            ctx.fillStyle = color(0);
            series.forEach((s, x) =>
                s.counts.slice(0, bins).forEach((n, b) => {
                    ctx.globalAlpha = Math.sqrt(n / s.total / most);
                    ctx.fillRect(x, bins - 1 - b, 1, 1);
                }),
            );
            return small;
        }
        function show() {
            if (!image) return;
            const ctx = canvas.getContext('2d');
            ctx.imageSmoothingEnabled = false;
            ctx.clearRect(0, 0, canvas.width, canvas.height);
            ctx.drawImage(image, 0, 0, canvas.width, canvas.height);
            const each = canvas.width / image.width;
            ctx.strokeStyle = color(1);
            ctx.lineWidth = 2;
            ctx.strokeRect(marked * each + 1, 1, Math.max(2, each - 2), canvas.height - 2);
        }
        canvas.addEventListener('click', (event) =>
            onpick(
                Math.min(
                    data.series.length - 1,
                    Math.floor((event.offsetX / canvas.clientWidth) * data.series.length),
                ),
            ),
        );
        const observer = new ResizeObserver(draw);
        observer.observe(element);
        mapSignal.addEventListener('abort', () => observer.disconnect());
        onTheme(draw, mapSignal);
        return {
            element,
            draw,
            mark(i) {
                marked = i;
                show();
            },
        };
    }

    let last = 0;
    let due = 0;
    model.on((what) => {
        if (what === 'experiment') showChoices();
        if (what !== 'series' || split !== 'watched' || panel.hidden || playing) return;
        clearTimeout(due);
        due = setTimeout(
            () => {
                last = Date.now();
                if (!signal.aborted) read();
            },
            Math.max(0, last + EVERY_MS - Date.now()),
        );
    });
    showChoices();
    read();
}

/** The share of exact zeros, in a bar of its own. */
export function zeroBar(label = 'exactly 0') {
    const fillOf = h('span.zero-fill');
    const text = h('strong');
    const element = h('div.zero', text, h('div.zero-track', fillOf), h('span', label));
    return {
        element,
        set({ zero_count, total }) {
            const share = total ? zero_count / total : 0;
            setText(text, percent(share));
            element.title = `${count(zero_count)} of ${count(total)} activations`;
            fillOf.style.height = `${100 * share}%`;
        },
    };
}
