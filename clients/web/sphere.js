/** The sphere's cells, coloured by the unit that answers most: as a globe and as a map of equal areas. */

import { get } from './api.js';
import { distinctColor, isDark, onTheme } from './charts.js';
import { h } from './dom.js';
import { count, number } from './format.js';
import { load, segmented, table } from './widgets.js';

const SIZE = 420;

export function spherePanel(model, signal) {
    const box = h('div.stack');
    load(
        box,
        async () =>
            view(
                await get(`/v1/experiments/${model.experiment.id}/tiling?units=0:1`, signal),
                signal,
            ),
        signal,
    );
    return box;
}

/* A colour by itself for each unit that answers somewhere, or for each class. */
function makeColors(tiling, by) {
    const dark = isDark();
    const all = [...new Set(tiling.cells.map((c) => c[by]))];
    const colors = new Map(
        all.map((key, i) => [key, key === null ? [128, 128, 128] : rgb(distinctColor(i, dark))]),
    );
    return tiling.cells.map((c) => colors.get(c[by]));
}

const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
function rgb(color) {
    probe.fillStyle = color;
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function view(tiling, signal) {
    let by = 'unit';
    let colors = makeColors(tiling, by);
    const said = h(
        'p.muted',
        { role: 'status' },
        'Point at a cell to see which unit answers there. Drag the globe, or turn it with the arrow keys.',
    );
    const say = (cell) => {
        const c = tiling.cells[cell];
        if (c)
            said.textContent = `Cell ${c.cell} (band ${c.band}, sector ${c.sector}): unit ${c.unit ?? 'none'} answers with mean |h| ${number(c.mean)}; class ${c.class}, ${count(c.samples)} samples`;
    };
    const globe = makeGlobe(tiling, () => colors, say);
    const map = makeMap(tiling, () => colors, say);
    const draw = () => {
        colors = makeColors(tiling, by);
        globe.draw();
        map.draw();
    };
    onTheme(draw, signal);
    draw();
    const answering = new Set(tiling.cells.map((c) => c.unit).filter((u) => u !== null));
    return [
        h(
            'section.card',
            h(
                'div.card-head',
                h(
                    'h2',
                    `${count(tiling.bands * tiling.sectors)} cells`,
                    h(
                        'small',
                        `${tiling.bands} bands × ${tiling.sectors} sectors of equal area, ${tiling.split} split; ${count(answering.size)} of ${count(tiling.total)} units answer most somewhere`,
                    ),
                ),
                segmented(
                    'Colour',
                    [
                        ['unit', 'By unit'],
                        ['class', 'By class'],
                    ],
                    by,
                    (v) => {
                        by = v;
                        draw();
                    },
                ),
            ),
            h('div.sphere', globe.canvas, map.canvas),
            said,
        ),
        h('div.card.flush', cellTable(tiling)),
    ];
}

function cellTable(tiling) {
    const columns = [
        { text: 'Cell' },
        { text: 'Band', number: true },
        { text: 'Sector', number: true },
        { text: 'Unit', number: true },
        { text: 'Mean |h|', number: true },
        { text: 'Class', number: true },
        { text: 'Samples', number: true },
    ];
    const most = 400;
    const rows = tiling.cells.slice(0, most).map((c) =>
        h(
            'tr',
            h('td', c.cell),
            [c.band, c.sector, c.unit ?? '–', number(c.mean), c.class, c.samples].map((v) =>
                h('td.n', v),
            ),
        ),
    );
    return table(columns, rows, {
        caption: tiling.cells.length > most ? `The first ${most} cells` : 'Cells',
    });
}

const cellAt = (tiling, z, longitude) => {
    const band = Math.min(tiling.bands - 1, Math.floor(((z + 1) / 2) * tiling.bands));
    const sector = Math.min(
        tiling.sectors - 1,
        Math.floor((longitude / (2 * Math.PI)) * tiling.sectors),
    );
    return band * tiling.sectors + sector;
};

/** An orthographic view, one pixel after the other: any number of cells costs the same. */
function makeGlobe(tiling, colors, say) {
    const canvas = h('canvas.globe', {
        width: SIZE,
        height: SIZE,
        role: 'img',
        tabindex: 0,
        'aria-label': 'Globe of the cells; arrow keys turn it',
    });
    let turn = -0.6;
    let tilt = 0.45;

    /* The cell under x, y in −1 … 1, and how bright it is there; null outside. */
    function look(x, y) {
        const r = x * x + y * y;
        if (r > 1) return null;
        const depth = Math.sqrt(1 - r);
        const z = y * Math.cos(tilt) + depth * Math.sin(tilt);
        const front = depth * Math.cos(tilt) - y * Math.sin(tilt);
        const longitude = (Math.atan2(x, front) - turn + 4 * Math.PI) % (2 * Math.PI);
        return { cell: cellAt(tiling, z, longitude), light: 0.62 + 0.38 * depth };
    }
    function draw() {
        const ctx = canvas.getContext('2d');
        const image = ctx.createImageData(SIZE, SIZE);
        const all = colors();
        for (let j = 0, p = 0; j < SIZE; j++)
            for (let i = 0; i < SIZE; i++, p += 4) {
                const seen = look((2 * i + 1) / SIZE - 1, 1 - (2 * j + 1) / SIZE);
                if (!seen) continue;
                const edge = i && look((2 * i - 1) / SIZE - 1, 1 - (2 * j + 1) / SIZE);
                const light = edge && edge.cell !== seen.cell ? seen.light * 0.72 : seen.light;
                const c = all[seen.cell];
                image.data.set([c[0] * light, c[1] * light, c[2] * light, 255], p);
            }
        ctx.putImageData(image, 0, 0);
    }
    const rotate = (dx, dy) => {
        turn += dx;
        tilt = Math.max(-1.5, Math.min(1.5, tilt + dy));
        draw();
    };
    canvas.addEventListener('pointerdown', (e) => canvas.setPointerCapture(e.pointerId));
    canvas.addEventListener('pointermove', (e) => {
        const scale = SIZE / canvas.clientWidth;
        if (e.buttons)
            return rotate((e.movementX * scale * 2) / SIZE, (e.movementY * scale * 2) / SIZE);
        const seen = look(
            (2 * e.offsetX) / canvas.clientWidth - 1,
            1 - (2 * e.offsetY) / canvas.clientHeight,
        );
        if (seen) say(seen.cell);
    });
    canvas.addEventListener('keydown', (e) => {
        const by = {
            ArrowLeft: [-0.15, 0],
            ArrowRight: [0.15, 0],
            ArrowUp: [0, -0.15],
            ArrowDown: [0, 0.15],
        }[e.key];
        if (!by) return;
        e.preventDefault();
        rotate(...by);
    });
    return { canvas, draw };
}

/** Longitude across, z up: equal areas on the sphere are equal areas here. */
function makeMap(tiling, colors, say) {
    const canvas = h('canvas', {
        width: 2 * SIZE,
        height: SIZE,
        role: 'img',
        'aria-label': 'Map of the cells',
    });
    const { bands, sectors } = tiling;
    function draw() {
        const ctx = canvas.getContext('2d');
        const w = canvas.width / sectors;
        const t = canvas.height / bands;
        const all = colors();
        ctx.textAlign = 'center';
        ctx.textBaseline = 'middle';
        ctx.font = '600 20px system-ui, sans-serif';
        tiling.cells.forEach((c, i) => {
            const [r, g, b] = all[i];
            const x = c.sector * w;
            const y = canvas.height - (c.band + 1) * t;
            ctx.fillStyle = `rgb(${r} ${g} ${b})`;
            ctx.fillRect(x, y, Math.ceil(w), Math.ceil(t));
            if (w < 48 || t < 26 || c.unit === null) return;
            ctx.fillStyle = 0.3 * r + 0.59 * g + 0.11 * b > 120 ? '#10131a' : '#ffffff';
            ctx.fillText(String(c.unit), x + w / 2, y + t / 2);
        });
    }
    canvas.addEventListener('pointermove', (e) => {
        const sector = Math.floor((e.offsetX / canvas.clientWidth) * sectors);
        const band = bands - 1 - Math.floor((e.offsetY / canvas.clientHeight) * bands);
        say(band * sectors + sector);
    });
    return { canvas, draw };
}
