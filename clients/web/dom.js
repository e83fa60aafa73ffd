/** Elements. Text is always set as text, never as markup. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * h('div.card.wide', {title: 'x', onclick: f}, 'text', child, [more])
 * Attributes: on* are listeners, true sets a bare attribute, null and false leave it out.
 * Children: nodes, texts, numbers, arrays of them; null and false are left out.
 * @param {string} selector tag and classes
 * @param {Object<string, *>} [attributes]
 * @returns {HTMLElement}
 */
export function h(selector, attributes, ...children) {
    const [tag, ...classes] = selector.split('.');
    const element = document.createElement(tag || 'div');
    if (classes.length) element.className = classes.join(' ');
    if (isChild(attributes)) children.unshift(attributes);
    else setAttributes(element, attributes);
    put(element, children);
    return element;
}

/** The same for SVG. */
export function svg(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    setAttributes(element, attributes);
    put(element, children);
    return element;
}

function isChild(value) {
    return value instanceof Node || Array.isArray(value) || typeof value !== 'object';
}

function setAttributes(element, attributes) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
        else if (name === 'value') element.value = value;
        else if (name === 'checked') element.checked = value;
        else element.setAttribute(name, value === true ? '' : value);
    }
}

function put(element, children) {
    for (const child of children.flat(Infinity)) {
        if (child === null || child === undefined || child === false) continue;
        element.append(child instanceof Node ? child : String(child));
    }
}

/** Replaces what is in an element. */
export function fill(element, ...children) {
    element.replaceChildren();
    put(element, children);
    return element;
}

/** The same where one may just be at work: what had the focus has it again, or its like by name. */
export function refill(element, ...children) {
    const { activeElement } = document;
    const nameOf = (e) => e.getAttribute('aria-label') || e.textContent;
    const focused = element.contains(activeElement)
        ? { selector: activeElement.localName, name: nameOf(activeElement) }
        : null;
    fill(element, ...children);
    if (!focused) return;
    const like = [...element.querySelectorAll(focused.selector)].find(
        (e) => nameOf(e) === focused.name,
    );
    (like ?? element.querySelector('h1'))?.focus({ preventScroll: true });
}

/** Sets a text only if it differs, so that nothing is announced or laid out in vain. */
export function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
}

const icons = {
    list: 'M3 5h14M3 10h14M3 15h9',
    sweep: 'M3 16c4 0 5-11 8-11s3 7 6 7M3 3v14h14',
    queue: 'M4 4h12v4H4zM4 12h12M4 16h8',
    data: 'M3 5c0-3 14-3 14 0v10c0 3-14 3-14 0zM3 5c0 3 14 3 14 0M3 10c0 3 14 3 14 0',
    people: 'M7 9a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2 17c0-7 10-7 10 0M14 9a2.5 2.5 0 1 0-1-5M14 12c3 0 4 2 4 5',
    plus: 'M10 4v12M4 10h12',
    sun: 'M10 13a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM10 2v2M10 16v2M2 10h2M16 10h2M4.5 4.5l1.4 1.4M14.1 14.1l1.4 1.4M15.5 4.5l-1.4 1.4M5.9 14.1l-1.4 1.4',
    moon: 'M16 12A7 7 0 0 1 8 4a7 7 0 1 0 8 8z',
    out: 'M12 4h4v12h-4M3 10h9M9 7l3 3-3 3',
    pause: 'M7 4v12M13 4v12',
    play: 'M6 4l10 6-10 6z',
    stop: 'M5 5h10v10H5z',
    again: 'M15 5a7 7 0 1 0 2 5M15 2v3h-3',
    replay: 'M4 10a6 6 0 1 1 2 4.5M4 15v-3h3M10 7v3l2 2',
    trash: 'M4 6h12M8 6V4h4v2M6 6l1 11h6l1-11',
    down: 'M10 3v9M6 9l4 4 4-4M4 16h12',
    edit: 'M4 16l1-4 8-8 3 3-8 8zM12 5l3 3',
    search: 'M9 14A5 5 0 1 0 9 4a5 5 0 0 0 0 10zM13 13l4 4',
    up: 'M10 13V4M6 7l4-4 4 4M4 16h12',
    check: 'M4 10l4 4 8-9',
    close: 'M5 5l10 10M15 5L5 15',
    warn: 'M10 3l8 14H2zM10 8v4M10 14v1',
};

/** A decorative icon, in the colour of the text. */
export function icon(name) {
    return svg(
        'svg',
        { viewBox: '0 0 20 20', class: 'icon', 'aria-hidden': 'true' },
        svg('path', { d: icons[name] }),
    );
}

/** A new element id, for labels. */
let last = 0;
export const newId = (prefix) => `${prefix}-${(last += 1)}`;
