/** People: users with their roles and quotas, their tokens, and what was changed by whom. */

import { act, get, getPage } from './api.js';
import { fill, h, newId } from './dom.js';
import { bytes, count, NONE } from './format.js';
import {
    ask,
    attempt,
    button,
    empty,
    labelled,
    load,
    pageHead,
    select,
    table,
    tabs,
    timeAgo,
} from './widgets.js';

const roles = [
    ['admin', 'admin: everything'],
    ['member', 'member: own experiments'],
    ['viewer', 'viewer: looks only'],
];
const scopes = [
    ['', 'all that the role may'],
    ['read', 'read only'],
    ['write', 'read and write'],
];

/** @param {import('./router.js').Context} context */
export async function show({ root, signal, me }) {
    const parts = tabs(
        'People',
        [
            { key: 'users', text: 'Users', make: (p) => usersPanel(p, signal, me) },
            { key: 'audit', text: 'Audit', make: (p) => auditPanel(p, signal) },
        ],
        'users',
        () => {},
    );
    fill(root, pageHead('People'), parts.element);
    parts.open();
}

function usersPanel(panel, signal, me) {
    const box = h('div.card.flush');
    const read = () =>
        load(
            box,
            async () => userTable((await get('/v1/users?limit=200', signal)).users, me, read),
            signal,
        );
    fill(
        panel,
        h(
            'div.toolbar',
            button('Add a user', { name: 'plus', kind: 'primary', onclick: () => addUser(read) }),
        ),
        box,
    );
    read();
}

const ofQuota = (used, limit, format) => [
    format(used ?? 0),
    h('span.muted', ` of ${limit === null || limit === undefined ? '∞' : format(limit)}`),
];

function userTable(users, me, read) {
    if (!users.length) return empty('Nobody yet');
    const columns = [
        { text: 'Name' },
        { text: 'Role' },
        { text: 'Running', number: true },
        { text: 'Queued', number: true },
        { text: 'Storage', number: true },
        { text: 'Since', number: true },
        { text: '' },
    ];
    const rows = users.map((u) =>
        h(
            'tr',
            h(
                'td',
                h('strong', u.name),
                u.name === me.name && h('span.muted', ' (you)'),
                u.disabled && [' ', h('span.badge.cancelled', 'disabled')],
            ),
            h('td', u.role),
            h('td.n', ofQuota(u.usage.running, u.quotas.running, count)),
            h('td.n', ofQuota(u.usage.queued, u.quotas.queued, count)),
            h('td.n', ofQuota(u.usage.storage_bytes, u.quotas.storage_bytes, bytes)),
            h('td.n', timeAgo(u.created_at)),
            h(
                'td.n',
                h(
                    'span.actions.end.nowrap',
                    button('Tokens', { kind: 'small', onclick: () => showTokens(u) }),
                    button('Edit', { kind: 'small', onclick: () => editUser(u, read) }),
                ),
            ),
        ),
    );
    return table(columns, rows, { caption: 'Users' });
}

/* A dialog's check: does it, or says what is wrong. */
function trying(fault, work) {
    return async () => {
        try {
            await work();
            return true;
        } catch (error) {
            fill(
                fault,
                error.message,
                (error.errors ?? []).map((f) => ` ${f.pointer}: ${f.detail}`),
            );
            return false;
        }
    };
}

/** The one time that a token can be seen. */
function showSecret(token) {
    return ask({
        title: 'A token for once',
        body: [
            h('p', 'Hand it over now: it is stored as a hash and never shown again.'),
            h('code.secret', { tabindex: 0 }, token),
            button('Copy', {
                onclick: () => attempt(() => navigator.clipboard.writeText(token), 'Copied'),
            }),
        ],
        yes: 'Done',
        no: null,
    });
}

const quotaField = (name, value, scale = 1) =>
    h('input', {
        type: 'number',
        min: 0,
        step: scale > 1 ? 'any' : 1,
        value: value === null || value === undefined ? '' : value / scale,
        placeholder: 'no limit',
        'aria-label': name,
    });
const quotaOf = (field, scale = 1) =>
    field.value === '' ? null : Math.round(Number(field.value) * scale);
const GIB = 2 ** 30;

async function addUser(read) {
    const name = h('input', {
        required: true,
        maxlength: 64,
        autocomplete: 'off',
        spellcheck: 'false',
    });
    const role = select(roles, 'member');
    const fault = h('p.fault', { role: 'alert' });
    let made = null;
    const check = trying(
        fault,
        async () =>
            (made = await act('POST', '/v1/users', { name: name.value.trim(), role: role.value })),
    );
    if (
        !(await ask({
            title: 'Add a user',
            body: [labelled('Name', name), labelled('Role', role), fault],
            yes: 'Add',
            check,
        }))
    )
        return;
    await read();
    if (made.token) await showSecret(made.token.token ?? made.token);
}

async function editUser(u, read) {
    const role = select(roles, u.role);
    const running = quotaField('Running', u.quotas.running);
    const queued = quotaField('Queued', u.quotas.queued);
    const storage = quotaField('Storage in GiB', u.quotas.storage_bytes, GIB);
    const disabled = h('input', { type: 'checkbox', id: newId('f'), checked: u.disabled });
    const fault = h('p.fault', { role: 'alert' });
    const change = () => ({
        role: role.value,
        disabled: disabled.checked,
        quotas: {
            running: quotaOf(running),
            queued: quotaOf(queued),
            storage_bytes: quotaOf(storage, GIB),
        },
    });
    const check = trying(fault, () =>
        act('PATCH', `/v1/users/${encodeURIComponent(u.name)}`, change(), {
            'If-Match': `"${u.revision}"`,
        }),
    );
    const body = [
        labelled('Role', role),
        labelled('At most running', running),
        labelled('At most queued', queued),
        labelled('Storage, GiB', storage),
        h('label.check', disabled, 'Disabled: no token of theirs is taken'),
        fault,
    ];
    if (await ask({ title: `Edit ${u.name}`, body, yes: 'Save', check })) await read();
}

async function showTokens(u) {
    const path = `/v1/users/${encodeURIComponent(u.name)}/tokens`;
    const box = h('div');
    const label = h('input', { placeholder: 'laptop', maxlength: 64 });
    const scope = select(scopes, '');
    const days = h('input', { type: 'number', min: 1, placeholder: 'never' });
    const fault = h('p.fault', { role: 'alert' });
    const secret = h('div');
    const read = () => load(box, async () => tokenTable((await get(path)).tokens, path, read));
    const add = trying(fault, async () => {
        const body = { label: label.value.trim() || 'token' };
        if (scope.value) body.scope = scope.value;
        if (days.value)
            body.expires_at = new Date(Date.now() + days.value * 86_400_000).toISOString();
        const made = await act('POST', path, body);
        fill(
            secret,
            h('p', 'Hand it over now: it is never shown again.'),
            h('code.secret', { tabindex: 0 }, made.token),
        );
        await read();
    });
    read();
    await ask({
        title: `Tokens of ${u.name}`,
        body: [
            box,
            h('h3', 'New token'),
            h(
                'div.fields',
                labelled('Label', label),
                labelled('May', scope),
                labelled('Expires in days', days),
            ),
            fault,
            h('div.actions', button('Make a token', { name: 'plus', onclick: add })),
            secret,
        ],
        yes: 'Done',
        no: null,
    });
}

function tokenTable(tokens, path, read) {
    if (!tokens.length) return h('p.muted', 'None.');
    const revoke = (t) => () =>
        attempt(async () => {
            await act('DELETE', `${path}/${t.id}`);
            await read();
        }, 'Revoked');
    const columns = [
        { text: 'Label' },
        { text: 'May' },
        { text: 'Used', number: true },
        { text: 'Expires', number: true },
        { text: '' },
    ];
    const rows = tokens.map((t) =>
        h(
            'tr',
            h('td', t.label),
            h('td', t.scope),
            h('td.n', timeAgo(t.used_at)),
            h('td.n', t.expires_at ? t.expires_at.slice(0, 10) : 'never'),
            h(
                'td.n',
                t.revoked_at
                    ? h('span.muted', 'revoked')
                    : button('Revoke', { kind: 'small.danger', onclick: revoke(t) }),
            ),
        ),
    );
    return table(columns, rows, { caption: 'Tokens' });
}

function auditPanel(panel, signal) {
    const box = h('div.card.flush');
    fill(panel, box);
    const row = (e) =>
        h(
            'tr',
            h('td', timeAgo(e.at)),
            h('td', e.user ?? NONE),
            h('td', e.action),
            h('td', h('code', e.object)),
            h('td.wrap', e.detail ?? ''),
            h('td', e.address ?? NONE),
        );
    load(
        box,
        async () => {
            const { data, next } = await getPage('/v1/audit?limit=100', signal);
            if (!data.entries.length) return empty('Nothing was changed yet');
            const made = table(
                [
                    { text: 'When' },
                    { text: 'Who' },
                    { text: 'What' },
                    { text: 'Of' },
                    { text: '' },
                    { text: 'From' },
                ],
                data.entries.map(row),
                { caption: 'Audit' },
            );
            let path = next;
            const more = button('Show more', {
                onclick: () =>
                    attempt(async () => {
                        const page = await getPage(path, signal);
                        made.querySelector('tbody').append(...page.data.entries.map(row));
                        path = page.next;
                        more.hidden = !path;
                    }),
            });
            return [made, next && h('div.list-foot', more)];
        },
        signal,
    );
}
