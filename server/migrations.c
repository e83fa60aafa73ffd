#include "server/migrations.h"

#include <stddef.h>

/* A file's bytes and a final NUL in read-only memory; paths are relative to the project's root. */
#define EMBED(symbol, path)                                                                        \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"" path "\"\n.byte 0\n.previous\n");         \
    extern const char symbol[]

EMBED(migration_0001, "migrations/0001_initial.sql");
EMBED(migration_0002, "migrations/0002_sweeps.sql");
EMBED(migration_0003, "migrations/0003_datasets.sql");
EMBED(migration_0004, "migrations/0004_measures.sql");
EMBED(migration_0005, "migrations/0005_pause.sql");
EMBED(migration_0006, "migrations/0006_manage.sql");
EMBED(migration_0007, "migrations/0007_events.sql");
EMBED(migration_0008, "migrations/0008_people.sql");
EMBED(migration_0009, "migrations/0009_queue.sql");
EMBED(migration_0010, "migrations/0010_computing_time.sql");
EMBED(migration_0011, "migrations/0011_waiting_halves.sql");
EMBED(migration_0012, "migrations/0012_cluster.sql");
EMBED(migration_0013, "migrations/0013_tags.sql");
EMBED(migration_0014, "migrations/0014_lists.sql");

const char *const migrations[] = {
    migration_0001, migration_0002, migration_0003, migration_0004, migration_0005,
    migration_0006, migration_0007, migration_0008, migration_0009, migration_0010,
    migration_0011, migration_0012, migration_0013, migration_0014, NULL};
