/* What a plan and a search make a point's experiments with: server/sweeps.c and search.c. */
#ifndef SERVER_SWEEP_POINTS_H
#define SERVER_SWEEP_POINTS_H

#include "server/spec.h"
#include "server/store.h"

#include <jansson.h>

/* Characters of a sweep's name, since points add their number. */
enum { SWEEP_NAME_MOST = 180 };

/* An experiment's texts; struct new_experiment points to them. */
struct planned {
    char id[ID_SIZE], name[NAME_SIZE], tags[TAGS_SIZE];
    char *spec;
};

/* Compact JSON for free(); NULL without memory. */
char *sweep_dump(const json_t *value);

/* To six digits: plenty for a value that nobody chose, and can be read and typed. */
double sweep_round(double value);

/* The name of point k: the sweep's with its number, unless it has one of its own. */
void sweep_name_point(const json_t *spec, const char *sweep, size_t k, char name[NAME_SIZE]);

/* Gives a point's spec to one of its experiments, which has a name and a seed of its own. */
int sweep_personalize(json_t *spec, const char *point, int repeat, int repeats, int64_t seed,
                      char name[NAME_SIZE], struct ovr_err *err);

/* Tags as the store has them; what is no tag is left out. */
void sweep_join_tags(const json_t *tags, char *out, size_t size);

#endif
