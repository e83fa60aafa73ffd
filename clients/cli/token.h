/* Where ovrctl has its token from; never from its arguments, which everybody on the machine sees.
 */
#ifndef CLI_TOKEN_H
#define CLI_TOKEN_H

enum { TOKEN_ROOM = 256 };

/* From `file`; NULL: from $OVRD_TOKEN, else from ovrd/token in $XDG_CONFIG_HOME or ~/.config; ""
 * where there is none. A file that others can read is refused. Returns an exit code, the trouble
 * told. */
int token_find(const char *file, char token[TOKEN_ROOM]);

#endif
