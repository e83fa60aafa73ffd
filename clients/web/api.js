/** The daemon's API: requests, problems, the token, events as a stream. */

/** @typedef {{pointer?: string, parameter?: string, detail: string}} Fault */

/** An answer that is a problem (RFC 9457), or none at all (status 0). */
export class Problem extends Error {
    /** @param {{status: number, title: string, detail: string, errors?: Fault[], line?: number}} body */
    constructor(body) {
        super(body.detail || body.title);
        Object.assign(this, { errors: [] }, body);
    }
}

const RETRY_MS = 1000;
const RETRY_MOST_MS = 15_000;

const KEY = 'ovrd.token';

export const token = {
    get: () => sessionStorage.getItem(KEY),
    set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** Tells 'unauthorized', 'offline' and 'online'. */
export const signals = new EventTarget();

let online = true;
function setOnline(value) {
    if (online === value) return;
    online = value;
    signals.dispatchEvent(new Event(value ? 'online' : 'offline'));
    if (!value) seek();
}

/* Asks, more seldom each time, until the daemon answers; a page may have nothing else that would. */
async function seek() {
    for (let tries = 0; !online; tries++) {
        await nap(Math.min(RETRY_MS * 2 ** tries, RETRY_MOST_MS));
        if (!online) await send('/healthz').catch(() => {});
    }
}

const authorization = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

async function problemOf(response) {
    const body = await response.json().catch(() => null);
    const status = response.status;
    if (status === 401) signals.dispatchEvent(new Event('unauthorized'));
    return new Problem({
        title: response.statusText,
        detail: `The daemon answered ${status}.`,
        ...body,
        status,
    });
}

/**
 * @param {string} path with its query
 * @param {{method?: string, json?: *, body?: BodyInit, headers?: Object, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>} one that is fine
 * @throws {Problem}
 */
export async function send(path, { json, body, headers, ...options } = {}) {
    const all = { ...authorization(), ...headers };
    if (json !== undefined) {
        all['Content-Type'] = 'application/json';
        body = JSON.stringify(json);
    }
    let response;
    try {
        response = await fetch(path, { ...options, body, headers: all });
    } catch (error) {
        if (error.name === 'AbortError') throw error;
        setOnline(false);
        throw new Problem({
            status: 0,
            title: 'No connection',
            detail: 'The daemon does not answer.',
        });
    }
    setOnline(true);
    if (!response.ok) throw await problemOf(response);
    return response;
}

/** GET as JSON. */
export const get = async (path, signal) => (await send(path, { signal })).json();

/** The same, and the address of the next page of a list, or null. */
export async function getPage(path, signal) {
    const response = await send(path, { signal });
    const next = /<([^>]*)>;\s*rel="next"/.exec(response.headers.get('Link') ?? '');
    return { data: await response.json(), next: next ? next[1] : null };
}

/** POST, PATCH or DELETE; the answer as JSON, or null where it has none. */
export async function act(method, path, json, headers) {
    const response = await send(path, { method, json, headers });
    return response.headers.get('Content-Type')?.includes('json') ? response.json() : null;
}

/** A key with which a POST that is sent twice counts once. */
export function newKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

/** What needs the token but is no JSON, as an object URL for img or a; it lives as long as the signal. */
export async function blobUrl(path, signal) {
    const blob = await (await send(path, { signal })).blob();
    const url = URL.createObjectURL(blob);
    signal?.addEventListener('abort', () => URL.revokeObjectURL(url));
    return url;
}

/** Saves an answer as a file. */
export async function download(path, name) {
    const url = await blobUrl(path);
    const link = document.createElement('a');
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Uploads with progress, which fetch can't tell.
 * @param {(share: number) => void} progress
 */
export function upload(path, file, progress, signal) {
    return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open('PUT', path);
        for (const [name, value] of Object.entries(authorization()))
            request.setRequestHeader(name, value);
        request.upload.onprogress = (e) => e.lengthComputable && progress(e.loaded / e.total);
        request.onerror = () =>
            reject(
                new Problem({
                    status: 0,
                    title: 'No connection',
                    detail: 'The connection broke off.',
                }),
            );
        request.onabort = () => reject(new DOMException('aborted', 'AbortError'));
        request.onload = () => {
            let body = null;
            try {
                body = JSON.parse(request.responseText);
            } catch {
                // said below, by its status
            }
            if (request.status < 300) return resolve(body);
            if (request.status === 401) signals.dispatchEvent(new Event('unauthorized'));
            const detail = `The daemon answered ${request.status}.`;
            return reject(
                new Problem({ title: 'Refused', detail, ...body, status: request.status }),
            );
        };
        signal?.addEventListener('abort', () => request.abort());
        request.send(file);
    });
}

/* ---- Again and again ---- */

/** Resolves after so many ms, at once when aborted. */
export const nap = (ms, signal) =>
    new Promise((resolve) => {
        const timer = setTimeout(done, ms);
        function done() {
            clearTimeout(timer);
            signal?.removeEventListener('abort', done);
            resolve();
        }
        signal?.addEventListener('abort', done);
    });

/** Resolves when the page can be seen, or is left. */
const visible = (signal) =>
    new Promise((resolve) => {
        const look = () => {
            if (document.hidden && !signal.aborted) return;
            document.removeEventListener('visibilitychange', look);
            resolve();
        };
        document.addEventListener('visibilitychange', look);
        signal.addEventListener('abort', look);
        look();
    });

/**
 * Calls work() every so often while the page is seen, until the signal; rests while it fails for
 * want of a connection, longer each time. work() returning false ends it; other failures go up.
 */
export async function poll(work, ms, signal) {
    for (let failures = 0; !signal.aborted;) {
        await visible(signal);
        try {
            if (signal.aborted || (await work()) === false) return;
            failures = 0;
        } catch (error) {
            if (signal.aborted || error.name === 'AbortError') return;
            if (
                !(error instanceof Problem) ||
                (error.status && error.status < 500 && error.status !== 429)
            )
                throw error;
            failures += 1;
        }
        await nap(failures ? Math.min(RETRY_MS * 2 ** (failures - 1), RETRY_MOST_MS) : ms, signal);
    }
}

/** Server-Sent Events out of pieces of text. */
export function eventReader(onEvent) {
    let rest = '';
    return (piece) => {
        const blocks = (rest + piece).split('\n\n');
        rest = blocks.pop();
        for (const block of blocks) {
            const event = { id: null, type: 'message', data: '' };
            for (const line of block.split('\n')) {
                if (line.startsWith('id: ')) event.id = line.slice(4);
                else if (line.startsWith('event: ')) event.type = line.slice(7);
                else if (line.startsWith('data: ')) event.data += line.slice(6);
            }
            if (event.data) onEvent({ ...event, data: JSON.parse(event.data) });
        }
    };
}

async function readEvents(path, lastId, onEvent, signal) {
    const response = await send(path, {
        headers: lastId ? { 'Last-Event-ID': lastId } : {},
        signal,
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const take = eventReader(onEvent);
    for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        take(value);
    }
}

const finalStates = ['succeeded', 'failed', 'cancelled'];
export const isFinal = (state) => finalStates.includes(state);

/**
 * Follows an experiment until it ends: after a lost connection it goes on behind the last event
 * that came. Not EventSource, which can't send a token.
 * @param {(event: {id: string?, type: string, data: *}) => void} onEvent
 */
export async function follow(id, lastId, onEvent, signal) {
    let ended = false;
    const take = (event) => {
        if (event.id) lastId = event.id;
        if (event.type === 'state' && isFinal(event.data.state)) ended = true;
        onEvent(event);
    };
    await poll(
        async () => {
            const hidden = new AbortController();
            const look = () => document.hidden && hidden.abort();
            document.addEventListener('visibilitychange', look);
            const either = AbortSignal.any([signal, hidden.signal]);
            try {
                await readEvents(`/v1/experiments/${id}/events`, lastId, take, either);
            } catch (error) {
                if (signal.aborted) throw error;
                if (hidden.signal.aborted) return !ended;
                if (error instanceof Problem) throw error;
                setOnline(false); // cut off in the middle
                throw new Problem({
                    status: 0,
                    title: 'No connection',
                    detail: 'The stream broke off.',
                });
            } finally {
                document.removeEventListener('visibilitychange', look);
            }
            return !ended;
        },
        RETRY_MS,
        signal,
    );
}
