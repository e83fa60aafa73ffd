/** The list of sweeps. */

import { getPage, poll } from './api.js';
import { fill, h } from './dom.js';
import { between, count, duration } from './format.js';
import {
    badge,
    button,
    empty,
    linkButton,
    pageHead,
    progressBar,
    table,
    tag,
    timeAgo,
} from './widgets.js';

const POLL_MS = 3000;
const PAGE = 50;

/** Experiments that have ended, and all of them. */
export function tally(counts) {
    const ended = counts.succeeded + counts.failed + counts.cancelled;
    return { ended, all: ended + counts.queued + counts.running + counts.paused };
}

/** @param {import('./router.js').Context} context */
export async function show({ root, signal, me }) {
    const box = h('div.card.flush');
    let pages = 1;
    let shown = '';
    const read = async () => {
        const sweeps = [];
        let path = `/v1/sweeps?limit=${PAGE}`;
        for (let i = 0; path && i < pages; i++) {
            const page = await getPage(path, signal);
            sweeps.push(...page.data.sweeps);
            path = page.next;
        }
        const key = JSON.stringify([sweeps.map((s) => s.revision), path]);
        if (key === shown) return;
        shown = key;
        const more =
            path && h('div.list-foot', button('Show more', { onclick: () => read((pages += 1)) }));
        fill(box, sweeps.length ? [list(sweeps), more] : nothing(me));
    };
    await read();
    root.replaceChildren(pageHead('Sweeps'), box);
    poll(read, POLL_MS, signal);
}

const nothing = (me) =>
    empty(
        'No sweeps yet',
        'A sweep runs one spec with several values, such as λ from 1e-6 to 1e-2, and shows accuracy and sparsity against them.',
        me.canWrite && linkButton('New sweep', '#/new?sweep=1', 'plus', 'primary'),
    );

function list(sweeps) {
    const columns = [
        { text: 'Name' },
        { text: 'State' },
        { text: 'Experiments' },
        { text: 'Points', number: true },
        { text: 'Failed', number: true },
        { text: 'Took', number: true },
        { text: 'Created', number: true },
    ];
    const rows = sweeps.map((s) => {
        const { ended, all } = tally(s.counts);
        const bar = progressBar(`Ended experiments of ${s.name}`);
        bar.set(all ? ended / all : 0);
        return h(
            'tr',
            h(
                'td',
                h('a', { href: `#/sweeps/${s.id}` }, h('strong', s.name)),
                ' ',
                s.tags.map((t) => [tag(t), ' ']),
            ),
            h('td', badge(s.state)),
            h('td', h('span.cell-bar', bar.element, `${count(ended)} of ${count(all)}`)),
            h('td.n', count(s.size)),
            h('td.n', count(s.counts.failed)),
            h('td.n', duration(between(s.created_at, s.finished_at))),
            h('td.n', timeAgo(s.created_at)),
        );
    });
    return table(columns, rows, { caption: 'Sweeps' });
}
