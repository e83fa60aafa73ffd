/** A new experiment or sweep: a form and the JSON beside it, checked by the daemon while one types. */

import { act, get, nap, newKey, Problem } from './api.js';
import { fill, h, icon, newId, setText } from './dom.js';
import { parseValue, scalarPointers, specForm } from './form.js';
import { bytes, count, duration, number, placeOf, plainNumber, pretty } from './format.js';
import { go } from './router.js';
import { axisName } from './page-sweep.js';
import { attempt, button, facts, pageHead, segmented } from './widgets.js';

const REST_MS = 350;
const DRAFT = 'ovrd.draft';

const starting = {
    name: 'my-experiment',
    dataset: { generator: 'sphere', samples: 5000 },
    model: { kind: 'ovr_encoder', hidden: [512] },
    loss: { ovr: { lambda: 1e-5 } },
    optimizer: { learning_rate: 0.02 },
    training: { epochs: 15 },
    probe: { epochs: 20, learning_rate: 0.001 },
};

/**
 * A document that is posted: a spec, or a sweep, which has a base.
 * @typedef {{spec: Object, sweep: Object?}} Draft sweep: all of it but the base
 */
const draftOf = (document) => {
    if (document.base === undefined) return { spec: document, sweep: null };
    const { base, ...sweep } = document;
    return { spec: base, sweep };
};
const documentOf = ({ spec, sweep }) => (sweep ? { ...sweep, base: spec } : spec);

/** @param {import('./router.js').Context} context */
export async function show({ root, query, signal }) {
    const [schema, listed, first] = await Promise.all([
        get('/v1/schema', signal),
        get('/v1/datasets', signal),
        readStart(query, signal),
    ]);
    const names = (listed.datasets ?? []).map((d) => d.name);
    let draft = draftOf(first.document);
    if (query.get('sweep') === '1' && !draft.sweep)
        draft.sweep = {
            name: draft.spec.name,
            grid: { '/loss/ovr/lambda': [0, 1e-6, 1e-5, 1e-4] },
        };

    const editor = h('textarea.editor', {
        id: newId('editor'),
        spellcheck: 'false',
        autocomplete: 'off',
        autocapitalize: 'off',
        'aria-label': 'The document as JSON',
        oninput: () => typed(),
    });
    const syntax = h('p.fault', { role: 'alert' });
    const verdict = h('div', { 'aria-live': 'polite' });
    const submit = button('Submit', { name: 'play', kind: 'primary', onclick: () => post() });
    const form = specForm(schema, {
        datasets: () => [...names],
        change: (spec) => changed({ ...draft, spec }),
    });
    const axes = axesEditor(schema, (sweep) => changed({ ...draft, sweep }));
    const mode = h('div');

    const showMode = () =>
        fill(
            mode,
            segmented(
                'What to submit',
                [
                    ['one', 'One experiment'],
                    ['sweep', 'Sweep'],
                ],
                draft.sweep ? 'sweep' : 'one',
                (v) => {
                    draft = {
                        ...draft,
                        sweep:
                            v === 'sweep'
                                ? (draft.sweep ?? {
                                      name: draft.spec.name,
                                      grid: { '/loss/ovr/lambda': [0, 1e-6, 1e-5, 1e-4] },
                                  })
                                : null,
                    };
                    showForm();
                    changed(draft);
                },
            ),
        );
    function showForm() {
        showMode();
        axes.show(draft.sweep);
        form.show(draft.spec);
    }
    function changed(newDraft) {
        draft = newDraft;
        editor.value = pretty(documentOf(draft));
        setText(syntax, '');
        editor.removeAttribute('aria-invalid');
        check();
    }
    function typed() {
        let document;
        try {
            document = JSON.parse(editor.value);
            if (document === null || typeof document !== 'object' || Array.isArray(document))
                throw new Error('it has to be an object');
            draft = draftOf(document);
            showForm();
        } catch (error) {
            setText(syntax, `This is not JSON yet: ${error.message}`);
            editor.setAttribute('aria-invalid', 'true');
            run.abort();
            submit.disabled = true;
            return;
        }
        setText(syntax, '');
        editor.removeAttribute('aria-invalid');
        check();
    }

    let run = new AbortController();
    signal.addEventListener('abort', () => run.abort());
    const target = () => (draft.sweep ? '/v1/sweeps' : '/v1/experiments');

    /** Asks the daemon, a moment after the last change. */
    async function check() {
        run.abort();
        run = new AbortController();
        const mine = run.signal;
        sessionStorage.setItem(DRAFT, JSON.stringify(documentOf(draft)));
        await nap(REST_MS, mine);
        if (mine.aborted) return;
        try {
            const answer = await act('POST', `${target()}?dry_run=true`, documentOf(draft));
            if (mine.aborted) return;
            showFaults([]);
            submit.disabled = false;
            fill(verdict, estimate(answer));
        } catch (error) {
            if (mine.aborted) return;
            submit.disabled = error.status !== 0 && error.status < 500;
            showRefusal(error);
        }
    }
    /* Those of a sweep's base lie below /base. */
    function showFaults(faults) {
        const ofForm = draft.sweep
            ? faults
                  .filter((f) => f.pointer?.startsWith('/base'))
                  .map((f) => ({ ...f, pointer: f.pointer.slice(5) }))
            : faults;
        const rest = draft.sweep ? faults.filter((f) => !f.pointer?.startsWith('/base')) : [];
        return [...form.faults(ofForm), ...axes.faults(rest)];
    }
    function showRefusal(error) {
        const rest = showFaults(error.errors ?? []);
        const n = error.errors?.length ?? 0;
        fill(
            verdict,
            h(
                'div.problem',
                { role: 'alert' },
                icon('warn'),
                h(
                    'div',
                    h('strong', n ? `${n} thing${n > 1 ? 's' : ''} to change` : error.title),
                    n === 0 && h('p', error.message),
                    n > rest.length && h('p', 'Marked in the form.'),
                    rest.length > 0 &&
                        h(
                            'ul',
                            rest.map((f) =>
                                h('li', h('code', f.pointer || '(whole)'), ' ', f.detail),
                            ),
                        ),
                ),
            ),
        );
    }

    async function post() {
        submit.disabled = true;
        const sent = await attempt(async () => {
            try {
                const made = await postDraft(draft, first.from, target());
                sessionStorage.removeItem(DRAFT);
                go(draft.sweep ? `/sweeps/${made.id}` : `/experiments/${made.id}`);
            } catch (error) {
                if (error instanceof Problem && error.errors.length) showRefusal(error);
                throw error;
            }
        });
        if (!sent) submit.disabled = false;
    }

    fill(
        root,
        pageHead(first.title, { actions: [mode] }),
        h(
            'div.composer',
            h('div.stack', axes.element, form.element),
            h(
                'div.beside',
                h('section.card', h('div.card-head', h('h2', 'Check'), submit), verdict),
                h(
                    'section.card',
                    h(
                        'div.card-head',
                        h(
                            'h2',
                            h('label', { for: editor.id }, 'JSON'),
                            h('small', 'the same document; edit either'),
                        ),
                        button('Start anew', { kind: 'small', onclick: () => anew() }),
                    ),
                    syntax,
                    editor,
                ),
            ),
        ),
    );
    function anew() {
        draft = draftOf(structuredClone(starting));
        showForm();
        changed(draft);
    }
    showForm();
    changed(draft);
}

/* What one begins with: another's spec, what was being written, or an example. */
async function readStart(query, signal) {
    const from = query.get('from');
    const dataset = query.get('dataset');
    const sweep = query.get('sweep');
    if (from) {
        const e = await get(`/v1/experiments/${encodeURIComponent(from)}`, signal);
        return { title: `Run ${e.name} with changes`, document: e.spec, from: e };
    }
    if (sweep && sweep !== '1') {
        const s = await get(`/v1/sweeps/${encodeURIComponent(sweep)}`, signal);
        return { title: `Run ${s.name} with changes`, document: s.request, from: null };
    }
    if (dataset) {
        const { name, model, loss, training, probe } = structuredClone(starting);
        const preprocess = ['standardize'];
        const document = { name, dataset: { name: dataset }, preprocess, model, loss, training, probe };
        return { title: 'New experiment', document, from: null };
    }
    const kept = sessionStorage.getItem(DRAFT);
    let document = structuredClone(starting);
    try {
        if (kept) document = JSON.parse(kept);
    } catch {
        sessionStorage.removeItem(DRAFT);
    }
    return { title: 'New experiment', document, from: null };
}

/**
 * The merge patch (RFC 7396) that makes b of a; null where there is none, since null in a patch
 * takes a member out.
 */
export function patchOf(a, b) {
    const patch = {};
    for (const [name, value] of Object.entries(b)) {
        const old = a[name];
        if (JSON.stringify(old) === JSON.stringify(value)) continue;
        const both = [old, value].every(
            (v) => v !== null && typeof v === 'object' && !Array.isArray(v),
        );
        if (value === null) return null;
        patch[name] = both ? patchOf(old, value) : value;
        if (patch[name] === null || JSON.stringify(patch[name]).includes('null')) return null;
    }
    for (const name of Object.keys(a)) if (!(name in b)) patch[name] = null;
    return patch;
}

/* With changes it is told whose spec it was, where a patch can say what changed. */
function postDraft(draft, from, path) {
    const headers = { 'Idempotency-Key': newKey() };
    const patch = from && !draft.sweep ? patchOf(from.spec, draft.spec) : null;
    if (patch) return act('POST', `/v1/experiments/${from.id}/rerun`, patch, headers);
    return act('POST', path, documentOf(draft), headers);
}

function estimate({ estimate: e, experiments, points, warnings }) {
    return [
        facts([
            experiments !== undefined && [
                'Experiments',
                `${count(experiments)}, ${count(points)} points`,
            ],
            [
                'Time',
                `about ${duration(e.seconds)}${experiments > 1 ? ' one after the other' : e.executor === 'slurm' ? '' : ' alone on this machine'}`,
            ],
            ['Memory', `${bytes(e.memory_bytes)} at its peak${e.ranks > 1 ? ' of a rank' : ''}`],
            e.executor === 'slurm' && ['Runs on', placeOf(e)],
            ['Parameters', count(e.parameters)],
            ['Work', `${number(e.flops_per_epoch / 1e9, 3)} GFLOP an epoch`],
        ]),
        warnings?.length > 0 &&
            h(
                'div.notice',
                h(
                    'ul',
                    warnings.map((w) => h('li', w.pointer && h('code', w.pointer), ' ', w.detail)),
                ),
            ),
    ];
}

/* ---- What a sweep varies ---- */

function axesEditor(schema, change) {
    const element = h('section.card', { hidden: true });
    const pointers = scalarPointers(schema);
    const listId = newId('pointers');
    let sweep = null;
    let rows = [];

    const valueText = (v) =>
        Array.isArray(v) || (v && typeof v === 'object') ? JSON.stringify(v) : plainNumber(v);
    function values(text) {
        if (text.trim().startsWith('[')) {
            try {
                return JSON.parse(text);
            } catch {
                // as a list of texts, which the daemon then refuses where it stands
            }
        }
        return text
            .split(',')
            .map((t) => t.trim())
            .filter(Boolean)
            .map((t) => parseValue(t, { anyOf: [{ type: 'number' }, { type: 'string' }] }));
    }

    const written = (axes) => Object.fromEntries(axes.filter(([p]) => p).map(([p, v]) => [p, v]));
    function update(grid, anew) {
        sweep = { ...sweep, grid: written(grid) };
        if (!Object.keys(sweep.grid).length) delete sweep.grid;
        if (anew) draw();
        change(sweep);
    }
    function draw() {
        const grid = Object.entries(sweep.grid ?? {});
        rows = grid.map(([pointer, list], i) => axisRow(grid, pointer, list, i));
        const others = ['zip', 'points', 'chain', 'random', 'target_sparsity'].filter(
            (k) => sweep[k] !== undefined,
        );
        const unused = pointers.find((p) => !(p in (sweep.grid ?? {}))) ?? '';
        const repeats = h('input', {
            id: newId('f'),
            type: 'number',
            min: 1,
            max: 1000,
            value: sweep.repeats ?? 1,
            oninput: (e) => change((sweep = { ...sweep, repeats: Number(e.target.value) || 1 })),
        });
        const name = h('input', {
            id: newId('f'),
            value: sweep.name ?? '',
            placeholder: "the base's name",
            oninput: (e) => change((sweep = { ...sweep, name: e.target.value || undefined })),
        });
        fill(
            element,
            h(
                'fieldset',
                h('legend', 'Sweep'),
                h(
                    'div.fields',
                    h('div.field', h('label', { for: name.id }, 'name'), name),
                    h('div.field', h('label', { for: repeats.id }, 'seeds per point'), repeats),
                ),
            ),
            h(
                'datalist',
                { id: listId },
                pointers.map((p) => h('option', { value: p })),
            ),
            h(
                'div.stack.axes',
                rows.map((r) => r.element),
            ),
            others.length > 0 && h('p.muted', `Also varied in the JSON: ${others.join(', ')}.`),
            h(
                'div.actions',
                button('Vary another field', {
                    name: 'plus',
                    kind: 'small',
                    onclick: () => update([...grid, [unused, []]], true),
                }),
            ),
        );
    }
    function axisRow(grid, pointer, list, i) {
        const edit = (p, v) => update(grid.map((axis, k) => (k === i ? [p, v] : axis)));
        const place = h('input', {
            id: newId('f'),
            list: listId,
            value: pointer,
            spellcheck: 'false',
            onchange: (e) =>
                update(
                    grid.map((axis, k) => (k === i ? [e.target.value, axis[1]] : axis)),
                    true,
                ),
        });
        const given = h('input', {
            id: newId('f'),
            value: list.every((v) => typeof v !== 'object' && !String(v).includes(','))
                ? list.map(valueText).join(', ')
                : JSON.stringify(list),
            spellcheck: 'false',
            oninput: (e) => edit(pointer, values(e.target.value)),
        });
        const fault = h('span.fault');
        const remove = button('', {
            name: 'trash',
            title: `Don't vary ${axisName(pointer)}`,
            'aria-label': `Don't vary ${axisName(pointer)}`,
            onclick: () =>
                update(
                    grid.filter((_, k) => k !== i),
                    true,
                ),
        });
        return {
            pointer,
            fault,
            control: given,
            element: h(
                'div',
                h(
                    'div.axis',
                    h('div.field', h('label', { for: place.id }, 'field'), place),
                    h('div.field', h('label', { for: given.id }, 'values, by commas'), given),
                    remove,
                ),
                fault,
            ),
        };
    }
    return {
        element,
        show(newSweep) {
            sweep = newSweep;
            element.hidden = !sweep;
            rows = [];
            if (sweep) draw();
        },
        faults(list) {
            for (const r of rows) {
                r.fault.textContent = '';
                r.control.removeAttribute('aria-invalid');
            }
            return list.filter((f) => {
                const row = rows.find((r) =>
                    f.pointer?.startsWith(
                        `/grid/${r.pointer.replaceAll('~', '~0').replaceAll('/', '~1')}`,
                    ),
                );
                if (!row) return true;
                row.fault.textContent = f.detail;
                row.control.setAttribute('aria-invalid', 'true');
                return false;
            });
        },
    };
}
