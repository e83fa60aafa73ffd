/* The SQL files of migrations/, embedded. Append-only: a released file is never edited. */
#ifndef SERVER_MIGRATIONS_H
#define SERVER_MIGRATIONS_H

/* NULL-terminated, in order; the n-th brings a database from user_version n − 1 to n. */
extern const char *const migrations[];

#endif
