/** Sign-in: a token, kept for this window only. */

import { get, token } from './api.js';
import { fill, h } from './dom.js';

/** @param {() => void} done called once the token is good */
export function show(body, done) {
    const field = h('input', {
        type: 'password',
        id: 'token',
        autocomplete: 'current-password',
        required: true,
        spellcheck: 'false',
        'aria-describedby': 'token-hint token-error',
    });
    const fault = h('p.fault', { id: 'token-error', role: 'alert' });
    const wasSignedIn = token.get() !== null;
    const submit = async (event) => {
        event.preventDefault();
        token.set(field.value.trim());
        try {
            await get('/v1/me');
        } catch (error) {
            if (error.status === 401) return; // the page is here again, and says so
            return void fill(fault, error.message);
        }
        done();
    };
    document.title = 'Sign in · ovrd';
    body.replaceChildren(
        h(
            'main.signin',
            h('img', { src: '/assets/icon.svg', alt: '', width: 48, height: 48 }),
            h('h1', 'Sign in to ovrd'),
            h(
                'form.card',
                { onsubmit: submit },
                h('label', { for: 'token' }, 'Token'),
                field,
                h(
                    'small.hint',
                    { id: 'token-hint' },
                    'Whoever operates this daemon gave it to you. It stays in this tab and is forgotten when you close it.',
                ),
                fault,
                h('button.button.primary.wide', { type: 'submit' }, 'Sign in'),
            ),
        ),
    );
    if (wasSignedIn) fill(fault, 'This token is not valid: mistyped, expired or revoked.');
    token.set(null);
    field.focus();
}
