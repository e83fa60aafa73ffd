#include "clients/reproduce/html.h"

#include "clients/cli/text.h"

#include <stdarg.h>
#include <string.h>

static const char *entity(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return (unsigned char)c < 0x20 && !strchr("\t\n\r", c) ? "\xef\xbf\xbd" : NULL;
    }
}

void html_text(struct buf *html, const char *text) {
    while (*text) {
        size_t plain = 0;
        while (text[plain] && !entity(text[plain]))
            plain++;
        buf_addf(html, "%.*s", (int)plain, text);
        text += plain;
        if (*text)
            buf_add(html, entity(*text++));
    }
}

void html_add(struct buf *html, const char *pattern, ...) {
    va_list args;
    va_start(args, pattern);
    const char *hole;
    while ((hole = strstr(pattern, "{}"))) {
        buf_addf(html, "%.*s", (int)(hole - pattern), pattern);
        html_text(html, va_arg(args, const char *));
        pattern = hole + 2;
    }
    buf_add(html, pattern);
    va_end(args);
}
