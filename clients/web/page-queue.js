/** The queue: what runs, what waits, in which order, and why. */

import { act, getPage, poll } from './api.js';
import { fill, h, refill } from './dom.js';
import { bytes, count, duration, NONE, placeOf, when, whyQueued } from './format.js';
import { mayChange } from './router.js';
import {
    attempt,
    button,
    empty,
    figure,
    pageHead,
    progressBar,
    table,
    timeAgo,
} from './widgets.js';

const POLL_MS = 2000;
const PAGE = 100;

/** @param {import('./router.js').Context} context */
export async function show({ root, signal, me }) {
    const box = h('div.stack');
    let shown = '';
    let pages = 1;
    const read = async () => {
        const { data: queue, next } = await getPage(`/v1/queue?limit=${PAGE}`, signal);
        let path = next;
        for (let i = 1; path && i < pages; i++) {
            const more = await getPage(path, signal);
            queue.waiting.push(...more.data.waiting);
            path = more.next;
        }
        const key = JSON.stringify({ ...queue, at: null });
        if (key === shown) return;
        shown = key;
        refill(
            box,
            view(queue, me, read),
            path && h('div.list-foot', button('Show more', { onclick: () => read((pages += 1)) })),
        );
    };
    await read();
    fill(root, pageHead('Queue'), box);
    poll(read, POLL_MS, signal);
}

function view(queue, me, read) {
    const { running, waiting } = queue;
    const users = (queue.users ?? []).filter((u) => u.name);
    return [
        h(
            'dl.figures',
            figure('Running', count(running.length), {
                note:
                    queue.workers &&
                    (queue.cluster
                        ? `${queue.workers.busy} of ${queue.workers.total} workers busy here`
                        : `of ${queue.workers.total}`),
            }),
            figure('Waiting', count(queue.waiting_total ?? waiting.length)),
            queue.cores &&
                figure('Threads busy', count(queue.cores.threads), {
                    note: `on ${queue.cores.total} cores`,
                }),
            queue.memory &&
                figure('Memory free', bytes(queue.memory.free_bytes), {
                    note: `of ${bytes(queue.memory.total_bytes)}`,
                }),
            queue.cluster &&
                figure('On the cluster', count(queue.cluster.sent + queue.cluster.running), {
                    note: `of at most ${count(queue.cluster.most)}`,
                }),
        ),
        queue.cluster?.trouble && h('p.notice', 'Slurm: ', queue.cluster.trouble),
        h(
            'section.card.flush',
            h('div.card-pad', h('h2', 'Running')),
            running.length
                ? runningTable(running, me, queue.cluster)
                : empty('Nothing runs', 'The next experiment starts at once.'),
        ),
        h(
            'section.card.flush',
            h('div.card-pad', h('h2', 'Waiting')),
            waiting.length ? waitingTable(waiting, me, read) : empty('Nobody waits'),
        ),
        users.length > 0 &&
            h(
                'section.card.flush',
                h(
                    'div.card-pad',
                    h(
                        'h2',
                        'Shares',
                        h('small.muted', ' who used little lately goes first among equals'),
                    ),
                ),
                shareTable(users),
            ),
    ];
}

const link = (e) =>
    e.id
        ? h('a', { href: `#/experiments/${e.id}` }, h('strong', e.name))
        : h('span.muted', 'private');
const owner = (e, me) => me.users && h('td', e.owner ?? NONE);

function runningTable(list, me, cluster) {
    const columns = [
        { text: 'Experiment' },
        me.users && { text: 'Owner' },
        { text: 'Threads', number: true },
        { text: 'Memory', number: true },
        { text: 'Started', number: true },
        { text: 'Ends', number: true },
        cluster && { text: 'Where' },
    ].filter(Boolean);
    const rows = list.map((e) =>
        h(
            'tr',
            h('td', link(e)),
            owner(e, me),
            h('td.n', count(e.threads)),
            h('td.n', bytes(e.memory_bytes)),
            h('td.n', timeAgo(e.started_at)),
            h('td.n', inSome(e.estimated_end)),
            cluster && h('td', placeOf(e)),
        ),
    );
    return table(columns, rows, { caption: 'Running experiments' });
}

/** A time ahead as "in 3 min". */
function inSome(time) {
    if (!time) return NONE;
    const s = (Date.parse(time) - Date.now()) / 1000;
    return h('time', { datetime: time, title: when(time) }, s < 1 ? 'now' : `in ${duration(s)}`);
}

function waitingTable(list, me, read) {
    const first = (e) => () =>
        attempt(async () => {
            await act(
                'PATCH',
                `/v1/experiments/${e.id}`,
                { priority: Math.min(100, e.priority + 1) },
                { 'If-Match': '*' },
            );
            await read();
        });
    const columns = [
        { text: '#', number: true },
        { text: 'Experiment' },
        me.users && { text: 'Owner' },
        { text: 'Priority', number: true },
        { text: 'Why it waits' },
        { text: 'Starts', number: true },
        { text: 'Waiting since', number: true },
    ].filter(Boolean);
    const rows = list.map((e) =>
        h(
            'tr',
            h('td.n', e.position),
            h('td', link(e)),
            owner(e, me),
            h(
                'td.n',
                e.priority,
                e.id &&
                    mayChange(me, e.owner) && [
                        ' ',
                        button('+1', {
                            kind: 'small',
                            title: `Raise the priority of ${e.name}`,
                            onclick: first(e),
                        }),
                    ],
            ),
            h('td.wrap', whyQueued(e)),
            h('td.n', inSome(e.estimated_start)),
            h('td.n', timeAgo(e.created_at)),
        ),
    );
    return table(columns, rows, { caption: 'Waiting experiments' });
}

function shareTable(users) {
    const most = Math.max(...users.map((u) => u.recent_core_seconds), 1);
    const columns = [
        { text: 'User' },
        { text: 'Used lately' },
        { text: 'Cores now', number: true },
        { text: 'Running', number: true },
        { text: 'Waiting', number: true },
    ];
    const rows = users.map((u) => {
        const bar = progressBar(`Recent use of ${u.name}`);
        bar.set(u.recent_core_seconds / most);
        return h(
            'tr',
            h('td', u.name),
            h(
                'td',
                h('span.cell-bar', bar.element, `${duration(u.recent_core_seconds)} of a core`),
            ),
            h('td.n', count(u.cores)),
            h('td.n', count(u.running), u.max_running !== null && ` of ${u.max_running}`),
            h('td.n', count(u.waiting)),
        );
    });
    return table(columns, rows, { caption: 'Use by user' });
}
