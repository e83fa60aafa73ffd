/** One experiment, live: curves, activations, units, filters or sphere, spec, log, files. */

import { act, download, follow, get, getPage, isFinal, nap, newKey, poll, send } from './api.js';
import { fill, h, refill, setText } from './dom.js';
import { curves } from './curves.js';
import {
    at,
    between,
    bytes,
    count,
    duration,
    leaves,
    NONE,
    number,
    percent,
    placeOf,
    pretty,
    when,
    whyQueued,
} from './format.js';
import { histogramPanel } from './histogram.js';
import { go, href, mayChange } from './router.js';
import { spherePanel } from './sphere.js';
import {
    announce,
    ask,
    attempt,
    badge,
    button,
    empty,
    facts,
    figure,
    labelled,
    linkButton,
    load,
    pageHead,
    pictures,
    problemBox,
    progressBar,
    segmented,
    shareOf,
    table,
    tabs,
    tag,
    timeAgo,
} from './widgets.js';

const WATCH_MS = 3000;
const CURVE_POINTS = 1000; /* up to twice as many while it runs, then every other one goes */
const DRAW_MS = 300;

/** What the panels share; they call on(f) to hear of changes. */
function makeModel(experiment) {
    const listeners = new Set();
    return {
        experiment,
        series: [],
        on: (f) => listeners.add(f),
        tell: (what) => listeners.forEach((f) => f(what)),
    };
}

/** @param {import('./router.js').Context} context */
export async function show({ root, params, signal, me }) {
    const [id, tab = 'curves'] = params;
    const path = `/v1/experiments/${encodeURIComponent(id)}`;
    const model = makeModel(await get(path, signal));
    const head = h('div');
    const figures = h('div.stack');
    const gone = h('div');
    const live = liveBar(model);
    const parts = panels(model, signal, me);
    const chosen = tabs('Parts of the experiment', parts, tab, (key) =>
        history.replaceState(null, '', href(`/experiments/${id}/${key}`)),
    );

    const refresh = async () => {
        const before = model.experiment;
        model.experiment = await get(path, signal);
        if (before.state !== model.experiment.state)
            announce(`${model.experiment.name} is ${model.experiment.state}`);
        model.tell('experiment');
    };
    const showFigures = () => fill(figures, keyFigures(model), trouble(model.experiment));
    const showHead = () => {
        refill(head, heading(model.experiment, refresh, me));
        showFigures();
    };
    let shown = '';
    model.on((what) => {
        const e = model.experiment;
        const key = `${e.revision} ${e.state}`;
        if (what === 'series') showFigures();
        if (key !== shown) showHead();
        shown = key;
    });
    showHead();
    fill(root, gone, head, live, figures, chosen.element);
    model.series = (await get(`${path}/metrics?max_points=${CURVE_POINTS}`, signal)).series;
    chosen.open();
    model.tell('series');
    if (isFinal(model.experiment.state)) return;
    watch(model, refresh, signal).catch((error) => {
        if (signal.aborted || error.status === 401) return;
        fill(gone, problemBox(error)); /* deleted meanwhile, or no longer to be seen */
        live.hidden = true;
    });
}

/* Events while it runs; and the experiment now and then, for its place in the queue. An event has a
 * larger number than its epoch, so from the last known epoch's number on nothing can be missing. */
async function watch(model, refresh, signal) {
    const lastEpoch = () => model.series.at(-1)?.epoch ?? 0;
    let stale = 0;
    let due = 0;
    signal.addEventListener('abort', () => clearTimeout(due));
    /* Epochs can come by the thousand a second; they are drawn a few times a second. */
    const tellSoon = () => {
        due ||= setTimeout(() => {
            due = 0;
            model.tell('series');
        }, DRAW_MS);
    };
    const onEvent = ({ type, data }) => {
        if (type === 'progress') {
            model.experiment = { ...model.experiment, progress: data };
            model.tell('progress');
        } else if (type === 'epoch' && data.epoch > lastEpoch()) {
            model.series.push(data);
            if (model.series.length > 2 * CURVE_POINTS)
                model.series = model.series.filter((e, i, all) => (all.length - i) % 2);
            tellSoon();
        } else if (type === 'state' && data.state !== model.experiment.state) {
            clearTimeout(stale);
            stale = setTimeout(() => refresh().catch(() => {}), 50);
        }
    };
    const asked = poll(
        async () => {
            await refresh();
            return !isFinal(model.experiment.state);
        },
        WATCH_MS,
        signal,
    );
    await Promise.all([
        asked,
        follow(model.experiment.id, String(lastEpoch() || ''), onEvent, signal),
    ]);
}

/* ---- Above the tabs ---- */

function heading(e, refresh, me) {
    const sub = [
        badge(e.state),
        e.private && h('span.tag', { title: 'Seen by its owner and admins only' }, 'private'),
        e.executor === 'slurm' && h('span.tag.place', { title: 'Where it runs' }, placeOf(e)),
        e.tags.map((t) => tag(t, () => go('/experiments', { tag: t }))),
        h(
            'span.muted',
            e.owner && me.users ? `${e.owner} · ` : '',
            'created ',
            timeAgo(e.created_at),
            ' · ',
            h('code', e.id),
        ),
        e.sweep && h('a', { href: `#/sweeps/${e.sweep}` }, `point ${e.point} of a sweep`),
        e.rerun_of &&
            h(
                'a',
                { href: `#/experiments/${e.rerun_of}` },
                e.replays ? 'replays another' : 'runs another again',
            ),
    ];
    return pageHead(e.name, { sub, actions: actionButtons(e, refresh, me) });
}

function actionButtons(e, refresh, me) {
    const own = mayChange(me, e.owner);
    const path = `/v1/experiments/${e.id}`;
    const post = (what, done) => () =>
        attempt(async () => {
            await act('POST', `${path}/${what}`, undefined, { 'Idempotency-Key': newKey() });
            await refresh();
        }, done);
    const open = (what) => () =>
        attempt(async () => {
            const made = await act('POST', `${path}/${what}`, undefined, {
                'Idempotency-Key': newKey(),
            });
            go(`/experiments/${made.id}`);
        });
    const cancel = async () => {
        const sure = await ask({
            title: `Cancel ${e.name}?`,
            body: h(
                'p',
                'It stops at its next step. What it has shown so far stays; it can be run again, not resumed.',
            ),
            yes: 'Cancel it',
            kind: 'danger',
        });
        if (sure) await post('cancel', 'Cancelled')();
    };
    const remove = async () => {
        const sure = await ask({
            title: `Delete ${e.name}?`,
            body: h('p', 'Its results, weights and log are removed for good.'),
            yes: 'Delete it',
            kind: 'danger',
        });
        if (sure && (await attempt(() => act('DELETE', path), `${e.name} is deleted`)))
            go('/experiments');
    };
    const ended = isFinal(e.state);
    return [
        own &&
            ['queued', 'running'].includes(e.state) &&
            button('Pause', { name: 'pause', onclick: post('pause', 'Paused') }),
        own &&
            e.state === 'paused' &&
            button('Resume', {
                name: 'play',
                kind: 'primary',
                onclick: post('resume', 'Back in the queue'),
            }),
        own && !ended && button('Cancel', { name: 'stop', kind: 'danger', onclick: cancel }),
        me.canWrite &&
            ended &&
            button('Run again', {
                name: 'again',
                title: 'The same spec as a new experiment',
                onclick: open('rerun'),
            }),
        me.canWrite && linkButton('Run with changes', href('/new', { from: e.id }), 'edit'),
        me.canWrite &&
            e.state === 'succeeded' &&
            button('Replay', {
                name: 'replay',
                title: 'Run it again and compare bit for bit',
                onclick: open('replay'),
            }),
        own &&
            button('Edit', {
                name: 'edit',
                title: 'Name, tags, notes, priority',
                onclick: () => edit(e, refresh),
            }),
        own && ended && button('Delete', { name: 'trash', kind: 'danger', onclick: remove }),
    ].filter(Boolean);
}

async function edit(e, refresh) {
    const name = h('input', { value: e.name, maxlength: 200 });
    const words = h('input', { value: e.tags.join(', ') });
    const notes = h('textarea', { rows: 6, value: e.notes, maxlength: 10000 });
    const priority = h('input', { type: 'number', min: -100, max: 100, value: e.priority });
    const fault = h('p.fault', { role: 'alert' });
    const check = async () => {
        const change = {
            name: name.value,
            tags: words.value
                .split(',')
                .map((t) => t.trim())
                .filter(Boolean),
            notes: notes.value,
        };
        if (e.state === 'queued') change.priority = Number(priority.value);
        try {
            await act('PATCH', `/v1/experiments/${e.id}`, change, {
                'If-Match': `"${e.revision}"`,
            });
            return true;
        } catch (error) {
            fill(
                fault,
                error.status === 412
                    ? 'It has changed meanwhile. Close this and edit it once more.'
                    : [error.message, ...error.errors.map((f) => ` ${f.pointer}: ${f.detail}`)],
            );
            return false;
        }
    };
    const body = [
        labelled('Name', name),
        labelled('Tags', words, 'Separated by commas'),
        labelled('Notes', notes),
        e.state === 'queued' && labelled('Priority', priority, '−100 … 100; higher runs earlier'),
        fault,
    ].filter(Boolean);
    if (await ask({ title: 'Edit', body, yes: 'Save', check })) await refresh();
}

function liveBar(model) {
    const bar = progressBar('Progress of the training');
    const left = h('span');
    const right = h('span.muted');
    const element = h('div.card.live', left, bar.element, right);
    const show = () => {
        const e = model.experiment;
        const p = e.progress;
        element.hidden = e.state !== 'running' && e.state !== 'queued' && e.state !== 'paused';
        bar.element.hidden = e.state === 'queued';
        if (e.state === 'queued') {
            setText(left, `Place ${e.queue?.position ?? '?'} in the queue`);
            setText(right, whyQueued(e.queue ?? {}));
        } else if (e.state === 'paused') {
            setText(left, 'Paused');
            setText(right, 'Goes on from where it was when it is resumed');
            bar.set(
                e.spec.training
                    ? Math.min(1, (model.series.at(-1)?.epoch ?? 0) / e.spec.training.epochs)
                    : 0,
            );
        } else if (p) {
            setText(
                left,
                p.phase === 'training'
                    ? `Epoch ${p.epoch} of ${p.epochs}`
                    : p.phase === 'probing'
                      ? 'Training the probe'
                      : 'Preparing the data',
            );
            bar.set(p.phase === 'training' ? shareOf(p) : null);
            const speed =
                p.samples_per_second === null ? null : `${count(p.samples_per_second)} samples/s`;
            const eta = p.eta_seconds === null ? null : `${duration(p.eta_seconds)} left`;
            setText(
                right,
                [eta, speed, `${p.threads} thread${p.threads === 1 ? '' : 's'}`]
                    .filter(Boolean)
                    .join(' · '),
            );
        } else {
            setText(left, 'Starting');
            setText(right, '');
            bar.set(null);
        }
    };
    model.on(show);
    show();
    return element;
}

/* The result's figures, or those of the last epoch while there is none. */
function keyFigures({ experiment: e, series }) {
    const last = series.at(-1);
    const from =
        e.result ??
        (last && {
            ...last,
            accuracy: last.validation?.accuracy ?? last.test?.accuracy,
            test: last.validation ?? last.test,
        });
    if (!from) return null;
    const s = from.sparsity ?? {};
    const split = e.result ? 'test' : last.validation ? 'validation' : 'test';
    const hidden = e.spec.model.hidden?.at(-1);
    return h(
        'dl.figures',
        from.accuracy !== undefined &&
            figure('Accuracy', percent(from.accuracy, 2), {
                title: `On the ${split} split${e.result ? `, protocol ${from.protocol}` : ''}`,
            }),
        from.test?.loss !== undefined && figure(`Loss J (${split})`, number(from.test.loss)),
        figure('Near zero', percent(s.near_zero, 2), {
            title: 'Share of activations with |h| < 0.1',
        }),
        figure('Exactly zero', percent(s.zero, 2)),
        figure('Overlap', number(s.overlap), {
            title: 'Mean cosine between the codes of two samples',
        }),
        figure('Dead units', count(s.dead_units), {
            note: hidden ? `of ${count(hidden)}` : null,
            title: 'They answer to no sample',
        }),
        s.active_units &&
            figure('Active units', number(s.active_units.mean, 3), {
                note: `± ${number(s.active_units.sd, 2)}`,
                title: 'Units that answer to a sample, mean ± standard deviation',
            }),
        e.result &&
            figure('Best epoch', count(from.best_epoch), { note: `of ${count(from.epochs)}` }),
        figure(
            'Time',
            duration(
                from.seconds && e.result ? from.seconds : between(e.started_at, e.finished_at),
            ),
        ),
    );
}

function trouble(e) {
    const replay = at(e, 'result.replay');
    return [
        e.error &&
            h(
                'div.problem',
                { role: 'alert' },
                h('div', h('strong', e.error.title), h('p', e.error.detail)),
            ),
        replay &&
            h(
                'p.notice',
                { class: replay === 'match' ? 'notice fine' : 'notice' },
                replay === 'match'
                    ? 'Replay: every epoch and the final weights are the same, bit for bit.'
                    : `Replay: ${replay}.`,
            ),
    ];
}

/* ---- The tabs ---- */

function panels(model, signal, me) {
    const e = model.experiment;
    const onSphere = e.spec.dataset.generator === 'sphere';
    return [
        { key: 'curves', text: 'Curves', make: (p) => curves(p, model, signal) },
        { key: 'activations', text: 'Activations', make: (p) => histogramPanel(p, model, signal) },
        {
            key: 'units',
            text: 'Units',
            make: (p) => whenEnded(p, model, () => unitsPanel(model, signal)),
        },
        onSphere
            ? {
                  key: 'sphere',
                  text: 'Sphere',
                  make: (p) => whenEnded(p, model, () => spherePanel(model, signal)),
              }
            : {
                  key: 'filters',
                  text: 'Filters',
                  make: (p) => whenEnded(p, model, () => filtersPanel(model, signal)),
              },
        { key: 'spec', text: 'Spec', make: (p) => specPanel(p, model) },
        { key: 'log', text: 'Log', make: (p) => logPanel(p, model, signal) },
        {
            key: 'files',
            text: 'Files',
            make: (p) => whenEnded(p, model, () => filesPanel(model, signal, me)),
        },
    ];
}

/** Parts that there are only once it has succeeded. */
function whenEnded(panel, model, make) {
    let made = false;
    const look = () => {
        if (made) return;
        const { state } = model.experiment;
        if (state === 'succeeded') {
            made = true;
            fill(panel, make());
        } else
            fill(
                panel,
                isFinal(state)
                    ? empty(
                          'Nothing here',
                          `The experiment ${state === 'failed' ? 'failed' : 'was cancelled'} before its weights were evaluated.`,
                      )
                    : empty('Not yet', 'This is computed once training has ended.'),
            );
    };
    model.on(look);
    look();
}

const hiddenLayers = (e) =>
    (e.spec.model.hidden ?? [0]).map((_, i) => [`hidden.${i}`, `Layer ${i + 1}`]);

function unitsPanel(model, signal) {
    const { experiment: e } = model;
    const choice = { sort: '-firing_rate', dead: '', layer: hiddenLayers(e).at(-1)[0] };
    const box = h('div');
    const note = h('span.muted');
    const columns = [
        { text: 'Unit', key: 'unit' },
        { text: 'Firing rate', key: 'firing_rate', title: 'Share of samples with h ≠ 0' },
        { text: 'Mean |h|', key: 'mean', number: true },
        { text: 'Max |h|', key: 'maximum', number: true },
        { text: 'Bias', key: 'bias', number: true },
        { text: '‖w‖', key: 'weight_norm', number: true, title: 'Norm of its weights' },
        {
            text: 'Classes',
            key: 'classes',
            number: true,
            title: 'exp(entropy) of its mean |h| over the classes',
        },
        {
            text: 'Strongest',
            key: 'strongest_class',
            number: true,
            title: 'Class of the largest mean |h|',
        },
        { text: 'Hoyer', key: 'hoyer', number: true },
        { text: 'Gini', key: 'gini', number: true },
    ];
    const rowOf = (u) => {
        const bar = progressBar(`Firing rate of unit ${u.unit}`);
        bar.set(u.firing_rate);
        return h(
            'tr',
            h('td', u.unit, u.dead && [' ', h('span.badge.failed', 'dead')]),
            h('td', h('span.cell-bar', bar.element, percent(u.firing_rate))),
            [
                number(u.mean),
                number(u.maximum),
                number(u.bias),
                number(u.weight_norm),
                number(u.classes, 3),
                u.strongest_class ?? NONE,
                number(u.hoyer, 3),
                number(u.gini, 3),
            ].map((text) => h('td.n', text)),
        );
    };
    const list = () =>
        load(
            box,
            async () => {
                const query = href('', { ...choice, limit: 100 }).slice(1);
                const { data, next } = await getPage(
                    `/v1/experiments/${e.id}/units${query}`,
                    signal,
                );
                setText(
                    note,
                    `${count(data.matching)} of ${count(data.total)} units, ${data.split} split`,
                );
                const rows = data.units.map(rowOf);
                const made = table(columns, rows, {
                    caption: 'Units',
                    sort: choice.sort,
                    onsort: (s) => list((choice.sort = s)),
                });
                return [made, next && moreButton(made.querySelector('tbody'), next)];
            },
            signal,
        );
    const moreButton = (body, path) => {
        let next = path;
        const more = button('Show more', {
            onclick: () =>
                attempt(async () => {
                    const page = await getPage(next, signal);
                    body.append(...page.data.units.map(rowOf));
                    next = page.next;
                    more.hidden = !next;
                }),
        });
        return h('div.list-foot', more);
    };
    list();
    const layers = hiddenLayers(e);
    return [
        h(
            'div.toolbar',
            segmented(
                'Which units',
                [
                    ['', 'All'],
                    ['false', 'Living'],
                    ['true', 'Dead'],
                ],
                '',
                (v) => list((choice.dead = v)),
            ),
            layers.length > 1 &&
                segmented('Layer', layers, choice.layer, (v) => list((choice.layer = v))),
            note,
        ),
        h('div.card.flush', box),
    ];
}

const FILTERS = 200; /* shown at once, in two pictures */

function filtersPanel(model, signal) {
    const { experiment: e } = model;
    const total = e.spec.model.hidden?.[0] ?? FILTERS;
    const box = h('div.card');
    let first = 0;
    const range = h('span.muted');
    const back = button('Before', { onclick: () => move(-FILTERS) });
    const on = button('Next', { onclick: () => move(FILTERS) });
    function move(by) {
        first += by;
        const end = Math.min(total, first + FILTERS);
        back.disabled = first === 0;
        on.disabled = end >= total;
        setText(range, `Units ${first} … ${end - 1} of ${count(total)}`);
        load(
            box,
            async () => {
                const halves = [
                    [first, Math.min(end, first + FILTERS / 2)],
                    [first + FILTERS / 2, end],
                ].filter(([a, b]) => a < b);
                return pictures(
                    halves,
                    ([a, b]) => `/v1/experiments/${e.id}/filters.png?units=${a}:${b}`,
                    ([a, b]) => `Weights of units ${a} to ${b - 1} as images`,
                    signal,
                );
            },
            signal,
        );
    }
    move(0);
    return [
        h(
            'div.toolbar',
            back,
            on,
            range,
            h('span.muted', 'What each unit looks for, mapped back to the inputs'),
        ),
        box,
    ];
}

function specPanel(panel, model) {
    const copy = (text) => attempt(() => navigator.clipboard.writeText(text), 'Copied');
    let shown = 0;
    const show = () => {
        const e = model.experiment;
        if (shown === e.revision) return;
        shown = e.revision;
        const text = pretty(e.spec);
        const origin = e.provenance && leaves(e.provenance);
        fill(
            panel,
            e.notes && h('div.card', h('div.card-head', h('h2', 'Notes')), h('p.notes', e.notes)),
            h(
                'div.split',
                h(
                    'div.card',
                    h(
                        'div.card-head',
                        h('h2', 'Spec', h('small', 'all defaults filled in')),
                        button('Copy', { kind: 'small', onclick: () => copy(text) }),
                    ),
                    h('pre.json', { tabindex: 0, 'aria-label': 'Spec as JSON' }, text),
                ),
                h(
                    'div.card',
                    h(
                        'div.card-head',
                        h('h2', 'Provenance', h('small', 'enough to run it again bit for bit')),
                    ),
                    origin
                        ? facts(
                              origin.map(([pointer, value]) => [
                                  pointer.slice(1).replaceAll('/', '.'),
                                  h('span.mono', String(value)),
                              ]),
                          )
                        : h('p.muted', 'It is written down when the experiment has succeeded.'),
                    h('h3.over', 'Course'),
                    facts([
                        ['Created', when(e.created_at)],
                        ['Started', when(e.started_at)],
                        ['Finished', when(e.finished_at)],
                        ['Attempts', e.attempts],
                        ['Priority', e.priority],
                        ['Runs on', placeOf(e)],
                    ]),
                ),
            ),
        );
    };
    model.on(show);
    show();
}

function logPanel(panel, model, signal) {
    const text = h('pre.log', { tabindex: 0, 'aria-label': 'Log' });
    fill(panel, text);
    let again = false;
    let reading = false;
    const read = async () => {
        if (reading) return void (again = true);
        reading = true;
        try {
            const log = await (
                await send(`/v1/experiments/${model.experiment.id}/log`, { signal })
            ).text();
            const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 30;
            setText(text, log || 'Nothing yet.');
            if (atEnd) text.scrollTop = text.scrollHeight;
            await nap(1000, signal);
        } catch (error) {
            if (!text.textContent) setText(text, error.message);
        }
        reading = false;
        if (again && !signal.aborted) {
            again = false;
            read();
        }
    };
    model.on((what) => what !== 'progress' && !panel.hidden && read());
    read();
}

function filesPanel(model, signal, me) {
    const { experiment: e } = model;
    const path = `/v1/experiments/${e.id}`;
    const name = e.name.replace(/[^\w.-]+/g, '-').slice(0, 60) || e.id;
    const save = (text, what, file) =>
        button(text, {
            name: 'down',
            onclick: () => attempt(() => download(`${path}${what}`, file)),
        });
    const box = h('div');
    load(
        box,
        async () => {
            const { tensors } = await get(`${path}/weights`, signal);
            const columns = [
                { text: 'Tensor' },
                { text: 'Shape' },
                { text: 'Size', number: true },
                { text: '' },
            ];
            const rows = tensors.map((t) =>
                h(
                    'tr',
                    h('td', h('code', t.name)),
                    h('td', t.shape.map(count).join(' × ')),
                    h('td.n', bytes(4 * t.shape.reduce((a, b) => a * b, 1))),
                    h(
                        'td.n',
                        save(
                            '.npy',
                            `/weights/${encodeURIComponent(t.name)}?format=npy`,
                            `${name}.${t.name}.npy`,
                        ),
                    ),
                ),
            );
            return table(columns, rows, { caption: 'Tensors' });
        },
        signal,
    );
    return [
        h(
            'div.toolbar',
            save('Model (safetensors)', '/model?format=safetensors', `${name}.safetensors`),
            save('Figures of every epoch (CSV)', '/metrics?format=csv', `${name}.csv`),
            save('Spec and result (JSON)', '', `${name}.json`),
            save('Log', '/log', `${name}.log`),
        ),
        h('div.card.flush', box),
        me.users ? h('p.muted', 'With curl, send your token as Authorization: Bearer …') : null,
    ];
}
