/** Numbers, times and sizes as people read them. A value that is not there is "–". */

export const NONE = '–';

const missing = (x) => x === null || x === undefined || Number.isNaN(x);

/** Four significant digits; very large and small ones as 1.2e-5. */
export function number(x, digits = 4) {
    if (missing(x)) return NONE;
    if (x === 0) return '0';
    const size = Math.abs(x);
    if (Number.isInteger(x) && size < 1e7) return count(x);
    if (size >= 1e5 || size < 1e-3) return trim(x.toExponential(Math.min(digits - 1, 3)));
    return size >= 10 ** digits ? count(x) : trim(x.toPrecision(digits));
}

function trim(text) {
    const [mantissa, exponent] = text.split('e');
    const short = mantissa.includes('.') ? mantissa.replace(/\.?0+$/, '') : mantissa;
    return exponent ? `${short}e${exponent.replace('+', '')}` : short;
}

/** A share as per cent with one digit. */
export const percent = (x, digits = 1) => (missing(x) ? NONE : `${(100 * x).toFixed(digits)} %`);

/** An integer with thin groups of thousands. */
export const count = (x) =>
    missing(x) ? NONE : String(Math.round(x)).replace(/\B(?=(\d{3})+$)/g, '\u202f');

export function bytes(x) {
    if (missing(x)) return NONE;
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let i = 0;
    for (; x >= 1024 && i < units.length - 1; i++) x /= 1024;
    return `${i && x < 100 ? x.toPrecision(3) : Math.round(x)} ${units[i]}`;
}

/** Seconds as "0.34 s", "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function duration(s) {
    if (missing(s)) return NONE;
    if (s < 0.00995) return `${number(s * 1000, 2)} ms`;
    if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
    if (s < 9.95) return `${s.toPrecision(2)} s`;
    s = Math.round(s);
    if (s < 60) return `${s} s`;
    const pair = (a, unit, b, small) => `${a} ${unit}${b ? ` ${b} ${small}` : ''}`;
    if (s < 3600) return pair(Math.floor(s / 60), 'min', s % 60, 's');
    const minutes = Math.round(s / 60);
    if (minutes < 1440) return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
    return pair(Math.floor(minutes / 1440), 'd', Math.round((minutes % 1440) / 60), 'h');
}

/** How long ago; the exact time belongs into a title. */
export function ago(time, now = Date.now()) {
    if (!time) return NONE;
    const s = (now - Date.parse(time)) / 1000;
    if (s < 5) return 'just now';
    if (s < 60) return `${Math.round(s)} s ago`;
    if (s < 3600) return `${Math.round(s / 60)} min ago`;
    if (s < 86400) return `${Math.round(s / 3600)} h ago`;
    if (s < 86400 * 14) return `${Math.round(s / 86400)} d ago`;
    return time.slice(0, 10);
}

/** In the viewer's own zone, to the second. */
export function when(time) {
    if (!time) return NONE;
    const t = new Date(time);
    const two = (n) => String(n).padStart(2, '0');
    return (
        `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ` +
        `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`
    );
}

/** Where an experiment runs or is to run. */
export function placeOf(e) {
    if (e.executor !== 'slurm') return "the daemon's machine";
    const ranks = e.ranks > 1 && `${e.ranks} ranks`;
    const parts = ['Slurm', ranks, e.node, e.job && `job ${e.job}`];
    return parts.filter(Boolean).join(' · ');
}

/** Why one waits, and why again, where that is something else: of `queue` of an experiment, or a line of the queue. */
export const whyQueued = ({ reason, requeued_because: again }) =>
    !again || reason?.includes(again) ? (reason ?? '') : [reason, again].filter(Boolean).join(' · ');

/** Seconds between two times; the second one may be missing: until now. */
export const between = (from, to) =>
    from ? ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000 : null;

/** What stands at a dotted path: at({a: {b: 1}}, 'a.b') is 1. */
export const at = (object, path) => path.split('.').reduce((o, name) => o?.[name], object);

/** What stands at an RFC 6901 pointer. */
export function atPointer(object, pointer) {
    return pointerParts(pointer).reduce((o, name) => o?.[name], object);
}

export const pointerParts = (pointer) =>
    pointer === ''
        ? []
        : pointer
              .slice(1)
              .split('/')
              .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));

export const toPointer = (parts) =>
    parts.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');

/** A value of a spec in a cell: 512, "relu", [512, 256], {"pca": …}. */
export function specValue(value) {
    if (value === undefined) return NONE;
    if (typeof value === 'number') return number(value, 6);
    if (typeof value === 'string')
        return /^[0-9a-f]{64}$/.test(value) ? `${value.slice(0, 12)}…` : value;
    return JSON.stringify(value).replaceAll(',', ', ').replaceAll('":', '": ');
}

/** A number as one would type it: 1e-5 rather than 0.00001. */
export const plainNumber = (v) =>
    typeof v === 'number' && v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential() : String(v);

/** JSON for people: lists of plain values on one line, small numbers with an exponent. */
export function pretty(value, indent = '') {
    if (typeof value === 'number') return plainNumber(value);
    if (value === null || typeof value !== 'object') return JSON.stringify(value);
    const deeper = `${indent}  `;
    const list = Array.isArray(value);
    const inner = list
        ? value.map((v) => pretty(v, deeper))
        : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${pretty(v, deeper)}`);
    const [open, close] = list ? '[]' : '{}';
    const line = `${open}${inner.join(', ')}${close}`;
    const flat =
        line.length + indent.length <= 72 && !line.includes('\n') && (list || inner.length < 3);
    return !inner.length || (indent && flat)
        ? line
        : `${open}\n${deeper}${inner.join(`,\n${deeper}`)}\n${indent}${close}`;
}

/** Leaves of an object as [pointer, value]; arrays and empty objects are leaves. */
export function leaves(object, parts = []) {
    if (
        object === null ||
        typeof object !== 'object' ||
        Array.isArray(object) ||
        !Object.keys(object).length
    )
        return [[toPointer(parts), object]];
    return Object.entries(object).flatMap(([name, value]) => leaves(value, [...parts, name]));
}
