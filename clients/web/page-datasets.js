/** Data sets: upload with progress, what is in them, delete. */

import { act, get, upload } from './api.js';
import { fill, h, icon, setText } from './dom.js';
import { bytes, count, number } from './format.js';
import { go, href } from './router.js';
import {
    ask,
    attempt,
    button,
    empty,
    facts,
    labelled,
    linkButton,
    load,
    pageHead,
    pictures,
    progressBar,
    segmented,
    select,
    table,
    timeAgo,
} from './widgets.js';

/** @param {import('./router.js').Context} context */
export async function show(context) {
    if (context.params.length) return showOne(context);
    const { root, signal, me } = context;
    const box = h('div.card.flush');
    const read = () =>
        load(
            box,
            async () => {
                const { datasets } = await get('/v1/datasets', signal);
                return datasets.length
                    ? list(datasets)
                    : empty(
                          'No data sets yet',
                          'Upload one here, or with curl or ovrctl. The generated sphere needs none.',
                      );
            },
            signal,
        );
    fill(
        root,
        pageHead('Data sets'),
        h('div.split', box, me.canWrite && uploadForm('', signal, read)),
    );
    await read();
}

const shapeText = (s) =>
    s.image
        ? `${s.image.height} × ${s.image.width} × ${s.image.channels}`
        : count(s.values_per_sample);

function list(datasets) {
    const columns = [
        { text: 'Name' },
        { text: 'Training', number: true },
        { text: 'Test', number: true },
        { text: 'Values' },
        { text: 'Classes', number: true },
        { text: 'Size', number: true },
        { text: 'Uploaded', number: true },
    ];
    const rows = datasets.map(({ name, splits }) => {
        const any = splits.train ?? splits.test;
        const size = Object.values(splits).reduce((sum, s) => sum + s.bytes, 0);
        return h(
            'tr',
            h('td', h('a', { href: `#/datasets/${encodeURIComponent(name)}` }, h('strong', name))),
            h('td.n', count(splits.train?.samples)),
            h('td.n', count(splits.test?.samples)),
            h('td', shapeText(any)),
            h('td.n', count(any.classes)),
            h('td.n', bytes(size)),
            h('td.n', timeAgo(any.created_at)),
        );
    });
    return table(columns, rows, { caption: 'Data sets' });
}

/* ---- Upload ---- */

const formats = [
    ['csv', 'CSV: one row a sample'],
    ['npy', 'NPY: values and labels'],
    ['idx', 'IDX, as MNIST: values and labels'],
    ['cifar10', 'CIFAR-10 binary records'],
];

function uploadForm(name, signal, done) {
    const nameField = h('input', {
        value: name,
        required: true,
        maxlength: 64,
        autocomplete: 'off',
        spellcheck: 'false',
    });
    const split = select(
        [
            ['train', 'train'],
            ['test', 'test'],
        ],
        'train',
    );
    const format = select(formats, 'csv', () => showParts());
    const label = h('input', { value: 'last', spellcheck: 'false' });
    const file = h('input', { type: 'file', required: true });
    const labels = h('input', { type: 'file' });
    const bar = progressBar('Upload');
    const how = h('span.muted', { role: 'status' });
    const fault = h('p.fault', { role: 'alert' });
    const state = h('div', { hidden: true }, bar.element, how);
    const send = h('button.button.primary', { type: 'submit' }, icon('up'), h('span', 'Upload'));
    const parts = h('div.fields');
    const two = () => ['npy', 'idx'].includes(format.value);

    function showParts() {
        labels.required = two();
        fill(
            parts,
            labelled(two() ? 'Values' : 'File', file, 'gzip is detected'),
            two() && labelled('Labels', labels),
            format.value === 'csv' &&
                labelled('Column with the labels', label, "its name, its number from 0, or 'last'"),
        );
    }
    async function put(path, what, text) {
        state.hidden = false;
        bar.set(0);
        return upload(
            path,
            what,
            (share) => {
                bar.set(share < 1 ? share : null);
                setText(
                    how,
                    share < 1
                        ? `${text}: ${bytes(share * what.size)} of ${bytes(what.size)}`
                        : `${text}: the daemon reads it …`,
                );
            },
            signal,
        );
    }
    async function submit(event) {
        event.preventDefault();
        setText(fault, '');
        send.disabled = true;
        const path = `/v1/datasets/${encodeURIComponent(nameField.value.trim())}/${split.value}`;
        try {
            if (two()) {
                await put(`${path}/features?format=${format.value}`, file.files[0], 'Values');
                await put(`${path}/labels?format=${format.value}`, labels.files[0], 'Labels');
            } else
                await put(
                    `${path}${href('', { format: format.value, label: format.value === 'csv' ? label.value : null }).slice(1)}`,
                    file.files[0],
                    'File',
                );
            setText(how, `${nameField.value} ${split.value} is stored.`);
            bar.element.hidden = true;
            await done();
        } catch (error) {
            state.hidden = true;
            if (error.name !== 'AbortError')
                setText(
                    fault,
                    [
                        error.message,
                        ...(error.errors ?? []).map(
                            (f) => `${f.pointer ?? f.parameter ?? ''} ${f.detail}`,
                        ),
                    ].join(' '),
                );
        }
        bar.element.hidden = false;
        send.disabled = false;
    }
    showParts();
    return h(
        'form.card.drop',
        { onsubmit: submit },
        h('h2', 'Upload a split'),
        h(
            'div.fields',
            labelled('Name', nameField),
            labelled('Split', split),
            labelled('Format', format),
        ),
        parts,
        h(
            'p.muted',
            'Other content under the same name is a new version; experiments keep theirs.',
        ),
        fault,
        state,
        h('div.actions', send),
    );
}

/* ---- One ---- */

async function showOne({ root, params, signal, me }) {
    const [name] = params;
    const path = `/v1/datasets/${encodeURIComponent(name)}`;
    const set = await get(path, signal);
    const splits = Object.keys(set.splits);
    const preview = h('div');
    let split = splits[0];
    let first = 0;
    const remove = async () => {
        const sure = await ask({
            title: `Delete ${name}?`,
            body: h('p', 'Versions that experiments name stay until those are deleted.'),
            yes: 'Delete it',
            kind: 'danger',
        });
        if (sure && (await attempt(() => act('DELETE', path), `${name} is deleted`)))
            go('/datasets');
    };
    const showPreview = () =>
        load(preview, () => previewOf(path, set.splits[split], first, signal), signal);
    const move = (by) => {
        first = Math.max(0, Math.min(set.splits[split].samples - 1, first + by));
        showPreview();
    };
    fill(
        root,
        pageHead(name, {
            sub: h('a', { href: '#/datasets' }, 'all data sets'),
            actions: me.canWrite && [
                linkButton('New experiment', href('/new', { dataset: name }), 'plus'),
                button('Delete', { name: 'trash', kind: 'danger', onclick: remove }),
            ],
        }),
        set.waiting.map((w) => h('p.notice', w.detail)),
        h(
            'div.split',
            splits.map((s) => splitCard(s, set.splits[s], set.summary[s])),
        ),
        splits.length > 0 &&
            h(
                'section.card',
                h(
                    'div.card-head',
                    h('h2', 'Samples'),
                    h(
                        'div.toolbar',
                        splits.length > 1 &&
                            segmented(
                                'Split',
                                splits.map((s) => [s, s]),
                                split,
                                (v) => showPreview((split = v), (first = 0)),
                            ),
                        button('Before', {
                            kind: 'small',
                            onclick: () => move(-step(set.splits[split])),
                        }),
                        button('Next', {
                            kind: 'small',
                            onclick: () => move(step(set.splits[split])),
                        }),
                    ),
                ),
                preview,
            ),
    );
    if (splits.length) await showPreview();
}

const IMAGES = 200; /* shown at once, in two pictures */
const step = (s) => (s.image ? IMAGES : 20);

function splitCard(name, s, summary) {
    const classes = summary?.classes ?? [];
    return h(
        'section.card',
        h('div.card-head', h('h2', name === 'train' ? 'Training split' : 'Test split')),
        facts([
            ['Samples', count(s.samples)],
            ['Values', s.image ? `${shapeText(s)} image` : count(s.values_per_sample)],
            summary && [
                'Range',
                `${number(summary.values.min)} … ${number(summary.values.max)}, mean ${number(summary.values.mean)}, sd ${number(summary.values.sd)}`,
            ],
            [
                'Classes',
                classes.length
                    ? h(
                          'div.chips',
                          classes
                              .slice(0, 40)
                              .map((c) => h('span.tag', `${c.name}: ${count(c.samples)}`)),
                          classes.length > 40 && ` and ${classes.length - 40} more`,
                      )
                    : count(s.classes),
            ],
            ['Came as', `${s.format}, ${bytes(s.bytes)}`],
            ['Version', h('code', s.sha256)],
            ['Uploaded', timeAgo(s.created_at)],
        ]),
    );
}

async function previewOf(path, s, first, signal) {
    const end = Math.min(s.samples, first + step(s));
    const said = h('p.muted', `${count(first)} … ${count(end - 1)} of ${count(s.samples)}`);
    if (s.image) {
        const halves = [
            [first, Math.min(end, first + IMAGES / 2)],
            [first + IMAGES / 2, end],
        ].filter(([a, b]) => a < b);
        const rows = ([a, b]) => `${path}/preview?format=png&split=${s.split}&rows=${a}:${b}`;
        return [
            await pictures(
                halves,
                rows,
                ([a, b]) => `Samples ${a} to ${b - 1} of ${s.dataset} as images`,
                signal,
            ),
            said,
        ];
    }
    const p = await get(
        `${path}/preview?split=${s.split}&rows=${first}:${end}&features=0:${Math.min(s.values_per_sample, 24)}`,
        signal,
    );
    const names = p.feature_names ?? p.values[0].map((_, i) => `x${i + p.features[0]}`);
    const columns = [
        { text: 'Row', number: true },
        { text: 'Label' },
        ...names.map((text) => ({ text, number: true })),
    ];
    const rows = p.values.map((values, i) =>
        h(
            'tr',
            h('td.n', first + i),
            h('td', p.label_names?.[p.labels[i]] ?? p.labels[i]),
            values.map((v) => h('td.n', number(v))),
        ),
    );
    return [table(columns, rows, { caption: 'Samples' }), said];
}
