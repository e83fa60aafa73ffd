/** A form made of a spec's JSON Schema: what is filled in goes into the spec, the rest stays default. */

import { fill, h, newId } from './dom.js';
import { atPointer, plainNumber, pointerParts, specValue, toPointer } from './format.js';
import { button } from './widgets.js';

/* ---- Reading a schema ---- */

/** All alternatives of a schema, nested ones too; null apart. */
function alternatives(schema) {
    const list = schema.anyOf
        ? schema.anyOf.flatMap((s) => alternatives(s).list.concat(isNull(s) ? [s] : []))
        : [schema];
    return { list: list.filter((s) => !isNull(s)), nullable: list.some(isNull) };
}

const isNull = (s) => s.type === 'null';
const isScalar = (s) =>
    ['string', 'number', 'integer', 'boolean'].includes(s.type) || s.enum || s.const !== undefined;
const isScalarList = (s) => s.type === 'array' && alternatives(s.items).list.every(isScalar);
const soleName = (s) => (s.type === 'object' && s.required?.length === 1 ? s.required[0] : null);

/**
 * What stands for a schema in the form.
 * @returns {{kind: 'section'|'choice'|'enum'|'flag'|'scalar'|'steps', nullable: boolean, schema: Object,
 *   choices?: Map<string, Object>}} choices of a variant: name → its object's schema
 */
export function shapeOf(schema) {
    const { list, nullable } = alternatives(schema);
    const [one] = list;
    if (list.every((s) => isScalar(s) || isScalarList(s))) {
        if (list.length === 1 && one.enum) return { kind: 'enum', nullable, schema: one };
        if (list.length === 1 && one.type === 'boolean')
            return { kind: 'flag', nullable, schema: one };
        return {
            kind: 'scalar',
            nullable,
            schema: one,
            text: list.some((s) => s.type === 'string' || s.const),
        };
    }
    if (list.length === 1 && one.type === 'object')
        return { kind: 'section', nullable, schema: one };
    if (list.length === 1 && one.type === 'array') return { kind: 'steps', nullable, schema: one };
    const choices = new Map();
    for (const s of list) if (soleName(s) && !choices.has(soleName(s))) choices.set(soleName(s), s);
    for (const s of list)
        for (const name of s.enum ?? [])
            if (!choices.has(name)) choices.set(name, { properties: {} });
    return { kind: 'choice', nullable, schema: one, choices };
}

/** Which choice a value makes: "plateau" and {"plateau": {…}} are the same; a number is the first that is one. */
function choiceOf(value, choices) {
    if (typeof value === 'string') return value;
    if (typeof value === 'number')
        return (
            [...choices].find(([name, s]) => s.properties[name]?.type === 'number')?.[0] ??
            [...choices.keys()][0]
        );
    return Object.keys(value ?? {}).find((name) => choices.has(name)) ?? '';
}

const takesNothing = (schema) =>
    !schema || alternatives(schema).list.every((s) => s.const === true || s.maxProperties === 0);

/* ---- Values and texts ---- */

/** What was typed as a value: empty is undefined; lists by commas. */
export function parseValue(text, schema) {
    const trimmed = text.trim();
    if (trimmed === '') return undefined;
    const { list } = alternatives(schema);
    const lists = list.some((s) => s.type === 'array');
    if (lists && (trimmed.includes(',') || !list.some((s) => s.type !== 'array')))
        return trimmed
            .replace(/^\[|\]$/g, '')
            .split(',')
            .map((t) => t.trim())
            .filter(Boolean)
            .map((t) => scalar(t, list.find((s) => s.type === 'array').items));
    return scalar(trimmed, schema);
}

function scalar(text, schema) {
    const { list } = alternatives(schema);
    const number = Number(text);
    const numeric = list.some((s) => s.type === 'number' || s.type === 'integer');
    return numeric && !Number.isNaN(number) ? number : text;
}

export const textOf = (value) =>
    value === undefined || value === null
        ? ''
        : Array.isArray(value)
          ? value.map(plainNumber).join(', ')
          : plainNumber(value);

/** A copy with the value at the pointer; undefined takes it out, and objects that become empty with it. */
export function withValue(document, pointer, value) {
    const copy = structuredClone(document);
    const parts = pointerParts(pointer);
    const way = [copy];
    for (const part of parts.slice(0, -1)) {
        const inner = way.at(-1);
        if (inner[part] === null || typeof inner[part] !== 'object') inner[part] = {};
        way.push(inner[part]);
    }
    const last = parts.at(-1);
    if (value !== undefined) way.at(-1)[last] = value;
    else if (Array.isArray(way.at(-1))) way.at(-1).splice(Number(last), 1);
    else delete way.at(-1)[last];
    return copy;
}

/* ---- Which fields a spec can use, for a short form; what is set is shown all the same ---- */

const generated = (d) => d.dataset?.generator !== undefined;

/** The default of a member, such as the optimizer's name, which others depend on. */
const defaultAt = (schema, pointer) =>
    pointerParts(pointer).reduce((s, part) => s?.properties?.[part], schema)?.default;

/**
 * The part of a member's schema that the document can use, by its "x-when" (server/schema.c): all of it, those
 * alternatives that it can use, or null.
 */
export function usedPart(schema, document, root) {
    const fits = (s) =>
        Object.entries(s['x-when'] ?? {}).every(([pointer, values]) =>
            values.includes(atPointer(document, pointer) ?? defaultAt(root, pointer) ?? null),
        );
    if (!fits(schema)) return null;
    if (!schema.anyOf?.some((s) => s['x-when'])) return schema;
    const used = schema.anyOf.filter(fits);
    return used.length ? { ...schema, anyOf: used } : null;
}

/** What most people change; the rest is behind "More". */
const common = [
    '/name',
    '/tags',
    '/notes',
    '/dataset/name',
    '/dataset/train_limit',
    '/dataset/generator',
    '/dataset/samples',
    '/dataset/latitudes',
    '/dataset/sectors',
    '/preprocess',
    '/model/kind',
    '/model/hidden',
    '/model/activation',
    '/model/top_k',
    '/model/tied',
    '/model/dropout',
    '/loss/ovr',
    '/loss/ovr/lambda',
    '/loss/ovr/form',
    '/loss/activity',
    '/loss/activity/target',
    '/optimizer/name',
    '/optimizer/learning_rate',
    '/training/epochs',
    '/training/batch_size',
    '/training/seed',
    '/training/protocol',
    '/training/schedule',
];
const isCommon = (pointer) =>
    common.includes(pointer) ||
    !/^\/(name|tags|priority|private|notes|dataset|model|loss|optimizer|training)(\/[a-z0-9_]+)?$/.test(
        pointer,
    );

const titles = {
    dataset: 'Data set',
    preprocess: 'Preprocessing',
    model: 'Model',
    loss: 'Loss',
    optimizer: 'Optimizer',
    training: 'Training',
    probe: 'Probe',
    '': 'Experiment',
    l1: 'ℓ1',
    l2: 'ℓ2',
    ovr: 'OVR',
    kl: 'KL',
    top_k: 'top k',
    lambda: 'λ (lambda)',
    lambda_per_pair: 'λ per pair',
};
export const title = (name) =>
    /^\d+$/.test(name) ? `Step ${Number(name) + 1}` : (titles[name] ?? name.replaceAll('_', ' '));

/** Pointers of the numbers, texts and choices of a schema: what a sweep can vary. */
export function scalarPointers(schema, parts = []) {
    const shape = shapeOf(schema);
    if (shape.kind === 'section')
        return Object.entries(shape.schema.properties).flatMap(([name, s]) =>
            scalarPointers(s, [...parts, name]),
        );
    if (shape.kind === 'scalar' || shape.kind === 'enum' || shape.kind === 'flag')
        return [
            toPointer(schema.type === 'array' && parts.at(-1) === 'hidden' ? [...parts, 0] : parts),
        ];
    return [];
}

/**
 * @param {Object} schema of the spec
 * @param {{change: (document: Object) => void, datasets: () => string[]}} options
 * @returns {{element: HTMLElement, show: (document: Object) => void, faults: (list: import('./api.js').Fault[]) => import('./api.js').Fault[]}}
 *   faults() marks fields and returns what belongs to none
 */
export function specForm(schema, { change, datasets }) {
    const element = h('div.cards');
    const opened = new Set(); /* sections whose "More" is open */
    let document = {};
    let controls = new Map(); /* pointer → {control, fault} */

    function set(pointer, value, anew) {
        document = withValue(document, pointer, value);
        if (anew) show(document, pointer);
        change(document);
    }

    /* The members of a section that the document can use or has, each as the document can use it. */
    const fieldsOf = (section, pointer) =>
        Object.entries(section.properties).flatMap(([name, s]) => {
            const here = `${pointer}/${name}`;
            const chosen = here === '/dataset/name'; /* also where it is a generator */
            const used = chosen ? s : usedPart(s, document, schema);
            return used || atPointer(document, here) !== undefined ? [[here, used ?? s]] : [];
        });

    /* Made anew; the field that was just used keeps the focus. */
    function show(newDocument, focus) {
        document = newDocument;
        controls = new Map();
        const root = fieldsOf(schema, '');
        const isPlain = ([, s]) => ['scalar', 'enum', 'flag'].includes(shapeOf(s).kind);
        fill(
            element,
            card('', root.filter(isPlain)),
            root.filter((f) => !isPlain(f)).map(([p, s]) => section(p, s)),
        );
        if (focus !== undefined) controls.get(focus)?.control.focus();
    }

    function section(pointer, s) {
        const shape = shapeOf(s);
        const whole = shape.kind === 'section' && !shape.nullable;
        return card(pointer.slice(1), whole ? fieldsOf(shape.schema, pointer) : [[pointer, s]]);
    }

    function card(name, fields) {
        const first = fields.filter(([p]) => isCommon(p) || atPointer(document, p) !== undefined);
        const rest = fields.filter((f) => !first.includes(f));
        const more =
            rest.length > 0 &&
            h(
                'details',
                {
                    open: opened.has(name),
                    ontoggle: (e) => opened[e.target.open ? 'add' : 'delete'](name),
                },
                h('summary', `More (${rest.length})`),
                h(
                    'div.fields',
                    rest.map(([p, s]) => field(p, s)),
                ),
            );
        return h(
            'section.card',
            h(
                'fieldset',
                h('legend', title(name)),
                h(
                    'div.fields',
                    first.map(([p, s]) => field(p, s)),
                ),
                more,
            ),
        );
    }

    function field(pointer, s) {
        const shape = shapeOf(s);
        if (pointer === '/dataset/name') return datasetField(pointer, s);
        if (pointer === '/dataset/generator') return null; /* said where the data set is chosen */
        if (shape.kind === 'section') return objectField(pointer, s, shape);
        if (shape.kind === 'choice') return choiceField(pointer, s, shape);
        if (shape.kind === 'steps') return stepsField(pointer, shape);
        return valueField(pointer, s, shape);
    }

    /** A labelled control and the place of its fault. */
    function control(pointer, made, s, kind = '') {
        const id = newId('f');
        const fault = h('span.fault', { id: `${id}-fault` });
        const hint = s.description && h('small.hint', { id: `${id}-hint` }, s.description);
        made.id = id;
        made.setAttribute('aria-describedby', `${hint ? `${id}-hint ` : ''}${id}-fault`);
        made.dataset.pointer = pointer;
        controls.set(pointer, { control: made, fault });
        return h(
            `div.field${kind}`,
            h('label', { for: id }, title(pointerParts(pointer).at(-1) ?? '')),
            made,
            hint,
            fault,
        );
    }

    function valueField(pointer, s, shape) {
        const value = atPointer(document, pointer);
        const standard =
            s.default === undefined || s.default === null || s.default.length === 0
                ? ''
                : specValue(s.default);
        if (shape.kind === 'enum' || shape.kind === 'flag') {
            const choices = shape.kind === 'flag' ? [true, false] : shape.schema.enum;
            const shownDefault = standard === '' ? 'default' : `${standard} (default)`;
            const made = h(
                'select',
                {
                    onchange: (e) =>
                        set(
                            pointer,
                            e.target.value === '' ? undefined : choices[Number(e.target.value)],
                            true,
                        ),
                },
                h('option', { value: '' }, shownDefault),
                choices.map((c, i) => h('option', { value: i, selected: c === value }, String(c))),
            );
            return control(pointer, made, s);
        }
        const long = pointer === '/notes';
        const made = h(long ? 'textarea' : 'input', {
            value: textOf(value),
            placeholder:
                standard ||
                (shape.nullable ? 'none' : pointer === '/model/hidden' ? 'e.g. 512' : ''),
            rows: long ? 2 : null,
            inputmode: shape.text || long ? null : 'text',
            spellcheck: long ? 'true' : 'false',
            autocomplete: 'off',
            oninput: (e) =>
                set(pointer, long ? e.target.value || undefined : parseValue(e.target.value, s)),
        });
        return control(pointer, made, s, long ? '.full' : '');
    }

    function datasetField(pointer, s) {
        const value = generated(document) ? '\0sphere' : (atPointer(document, pointer) ?? '');
        const names = datasets();
        if (value && value !== '\0sphere' && !names.includes(value)) names.push(value);
        const made = h(
            'select',
            {
                onchange: (e) => {
                    const chosen = e.target.value;
                    document = withValue(
                        document,
                        '/dataset',
                        chosen === '\0sphere'
                            ? { generator: 'sphere' }
                            : chosen
                              ? { name: chosen }
                              : undefined,
                    );
                    show(document, pointer);
                    change(document);
                },
            },
            h('option', { value: '' }, 'Choose …'),
            h(
                'option',
                { value: '\0sphere', selected: value === '\0sphere' },
                'sphere (generated)',
            ),
            names.map((n) => h('option', { value: n, selected: n === value }, n)),
        );
        return control(pointer, made, { description: 'uploaded ones, or generated points' });
    }

    /** An object that may be off or left to the default. */
    function objectField(pointer, s, shape) {
        const value = atPointer(document, pointer);
        const state = value === undefined ? '' : value === null ? 'off' : 'on';
        const made = h(
            'select',
            {
                onchange: (e) =>
                    set(pointer, { '': undefined, off: null, on: {} }[e.target.value], true),
            },
            h('option', { value: '' }, 'default'),
            shape.nullable && h('option', { value: 'off', selected: state === 'off' }, 'off'),
            h('option', { value: 'on', selected: state === 'on' }, 'set …'),
        );
        const inner = state === 'on' && fieldsOf(shape.schema, pointer).map(([p, m]) => field(p, m));
        return h(
            inner ? 'div.nested' : 'div',
            control(pointer, made, s),
            inner && h('div.fields', inner),
        );
    }

    function choiceField(pointer, s, shape) {
        const value = atPointer(document, pointer);
        const names = [...shape.choices.keys()];
        const chosen =
            value === undefined ? '' : value === null ? '\0off' : choiceOf(value, shape.choices);
        const pick = (name) => {
            if (name === '') return undefined;
            if (name === '\0off') return null;
            const inner = shape.choices.get(name)?.properties?.[name];
            return takesNothing(inner) || shapeOf(inner).kind === 'section'
                ? name
                : { [name]: firstValue(inner) };
        };
        const standard =
            s.default === undefined || s.default === null
                ? 'default'
                : `${specValue(typeof s.default === 'object' ? Object.keys(s.default)[0] : s.default)} (default)`;
        const made = h(
            'select',
            { onchange: (e) => set(pointer, pick(e.target.value), true) },
            h('option', { value: '' }, standard),
            shape.nullable && h('option', { value: '\0off', selected: chosen === '\0off' }, 'off'),
            names.map((n) => h('option', { value: n, selected: n === chosen }, title(n))),
        );
        const inner =
            chosen && shape.choices.has(chosen)
                ? choiceFields(pointer, shape.choices.get(chosen), chosen, value)
                : [];
        return h(
            inner.length ? 'div.nested' : 'div',
            control(pointer, made, s),
            inner.length > 0 && h('div.fields', inner),
        );
    }

    /* The settings of a choice. A bare name becomes an object as soon as one of them is filled in. */
    function choiceFields(pointer, s, name) {
        const inner = s.properties?.[name];
        const beside = Object.entries(s.properties ?? {})
            .filter(([n]) => n !== name)
            .map(([n, p]) => field(`${pointer}/${n}`, p));
        if (takesNothing(inner)) return beside;
        const shape = shapeOf(inner);
        if (shape.kind === 'section')
            return [
                ...fieldsOf(shape.schema, `${pointer}/${name}`).map(([p, m]) => field(p, m)),
                ...beside,
            ];
        return [field(`${pointer}/${name}`, inner), ...beside];
    }

    const firstValue = (s) =>
        s.default !== undefined
            ? s.default
            : shapeOf(s).kind === 'scalar'
              ? s.exclusiveMinimum === 0
                  ? Math.min(0.1, s.maximum ?? 0.1)
                  : (s.minimum ?? '')
              : {};

    function stepsField(pointer, shape) {
        const steps = atPointer(document, pointer) ?? [];
        const names = [...shapeOf(shape.schema.items).choices.keys()];
        const rows = steps.map((step, i) => {
            const remove = button('', {
                name: 'trash',
                kind: 'small',
                title: `Remove step ${i + 1}`,
                'aria-label': `Remove step ${i + 1}`,
                onclick: () =>
                    set(
                        pointer,
                        steps.length > 1 ? steps.filter((_, k) => k !== i) : undefined,
                        true,
                    ),
            });
            return h('div.step.full', field(`${pointer}/${i}`, shape.schema.items), remove);
        });
        const add = h(
            'select',
            {
                'aria-label': 'Add a step',
                onchange: (e) =>
                    e.target.value &&
                    set(
                        pointer,
                        [
                            ...steps,
                            e.target.value === 'pca'
                                ? { pca: { components: 100 } }
                                : e.target.value === 'experiment'
                                  ? { experiment: '' }
                                  : e.target.value === 'scale'
                                    ? { scale: {} }
                                    : e.target.value,
                        ],
                        true,
                    ),
            },
            h('option', { value: '' }, 'Add a step …'),
            names.map((n) => h('option', { value: n }, n)),
        );
        add.dataset.pointer = pointer;
        const fault = h('span.fault');
        controls.set(pointer, { control: add, fault });
        return h(
            'div.full.fields',
            rows,
            h('div.field', add, fault),
            !steps.length && h('span.muted', 'None: values are used as they are.'),
        );
    }

    function faults(list) {
        for (const { control: made, fault } of controls.values()) {
            made.removeAttribute('aria-invalid');
            fault.textContent = '';
        }
        return list.filter((f) => {
            const found = nearest(f.pointer ?? '');
            if (!found) return true;
            found.control.setAttribute('aria-invalid', 'true');
            found.fault.textContent = [found.fault.textContent, f.detail]
                .filter(Boolean)
                .join('; ');
            const hidden = found.control.closest('details');
            if (hidden) hidden.open = true;
            return false;
        });
    }

    /* The control of the pointer, or of the object it lies in. */
    function nearest(pointer) {
        for (let p = pointer; p; p = p.slice(0, p.lastIndexOf('/'))) {
            if (controls.has(p)) return controls.get(p);
            if (p === '/dataset') return controls.get('/dataset/name');
            if (p === '/model') return controls.get('/model/kind');
        }
        return null;
    }

    return { element, show, faults };
}
