/** Pages by the part of the address behind '#', so that the daemon needs no path for them. */

/**
 * @typedef {Object} Me
 * @property {string?} name null on a daemon without users
 * @property {string} role
 * @property {boolean} users whether the daemon has any
 * @property {boolean} canWrite
 * @property {boolean} admin
 */

/** May this person change what that one owns? The daemon has the last word. */
export const mayChange = (person, owner) =>
    person.canWrite && (!person.users || person.admin || person.name === owner);

/**
 * @typedef {Object} Context what a page gets
 * @property {HTMLElement} root where it puts itself
 * @property {string[]} params parts of the path that stand for {}
 * @property {URLSearchParams} query
 * @property {AbortSignal} signal aborted when the page is left
 * @property {(changes: Object<string, string?>) => void} setQuery changes the address without going anywhere
 * @property {Me} me who is signed in
 */

/** '#/experiments/{}' against '#/experiments/abc' gives ['abc'], or null. */
export function match(pattern, path) {
    const a = pattern.split('/');
    const b = path.split('/');
    if (a.length !== b.length) return null;
    const params = [];
    for (let i = 0; i < a.length; i++) {
        if (a[i] === '{}' && b[i]) params.push(decoded(b[i]));
        else if (a[i] !== b[i]) return null;
    }
    return params;
}

/* A stray % stands for itself. */
function decoded(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}

/** The path and the query of the address. */
export function here() {
    const [path, query] = (location.hash.slice(1) || '/').split('?');
    return { path, query: new URLSearchParams(query) };
}

export function href(path, query = {}) {
    const filled = Object.entries(query).filter(
        ([, value]) => value !== null && value !== undefined && value !== '',
    );
    const text = new URLSearchParams(filled).toString();
    return `#${path}${text ? `?${text}` : ''}`;
}

/** Replaces members of the query; the page stays. */
export function setQuery(changes) {
    const { path, query } = here();
    history.replaceState(null, '', href(path, { ...Object.fromEntries(query), ...changes }));
}

export const go = (path, query) => {
    location.hash = href(path, query);
};
