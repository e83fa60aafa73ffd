#include "core/err.h"

#include "core/utf8.h"

#include <stdarg.h>
#include <stdio.h>

int ovr_fail(struct ovr_err *err, int code, const char *field, const char *format, ...) {
    if (!err || err->code)
        return code;
    err->code = code;
    snprintf(err->field, sizeof err->field, "%s", field ? field : "");
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    utf8_mend(err->field); /* JSON takes nothing else, and names from outside are cut anywhere */
    utf8_mend(err->text);
    return code;
}

int ovr_nomem(struct ovr_err *err, const char *what) {
    return ovr_fail(err, OVR_NOMEM, NULL, "not enough memory for %s", what);
}
