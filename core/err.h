/* Errors: one small struct that the caller owns and the callee fills.
 *
 * Every function that can fail returns 0 or a negative `enum ovr_code`, and takes a
 * `struct ovr_err *` as its last parameter, which may be NULL. The first error wins: a second
 * ovr_fail() on the same struct keeps the first text, so that cleaning up after a fault cannot
 * hide the fault. Texts are read by people: they say what is wrong and what to change.
 */
#ifndef OVR_ERR_H
#define OVR_ERR_H

enum ovr_code {
    OVR_OK = 0,
    OVR_INVALID = -1,    /* what was asked for makes no sense; the text says what to change */
    OVR_NOMEM = -2,      /* an allocation failed */
    OVR_IO = -3,         /* the operating system refused a read, a write, a socket */
    OVR_NOT_FOUND = -4,  /* no such thing */
    OVR_CONFLICT = -5,   /* not in this state */
    OVR_DIVERGED = -6,   /* training left the finite numbers */
    OVR_STOPPED = -7,    /* stopped because the owner asked for it */
    OVR_TOO_LARGE = -8,  /* over a limit of this machine or of the settings */
    OVR_FULL = -9,       /* no room now; later perhaps */
    OVR_INTERNAL = -10,  /* a fault of the program itself */
    OVR_FORBIDDEN = -11, /* somebody else's */
    OVR_QUOTA = -12,     /* more than who asks may have */
};

struct ovr_err {
    int code;        /* enum ovr_code; 0 while nothing happened */
    char field[128]; /* what it is about: a JSON pointer, a setting, a path; may be empty */
    char text[384];  /* a sentence for a person, without a final full stop */
};

/* Fills `err` unless it already holds an error or is NULL. `field` may be NULL. Returns `code`.
 * What is not UTF-8 is mended. */
int ovr_fail(struct ovr_err *err, int code, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for the commonest fault: an allocation of `what` failed. Returns OVR_NOMEM. */
int ovr_nomem(struct ovr_err *err, const char *what);

#endif
