/* `ovrd user`: people, from the machine itself, while no daemon runs.
 *
 *   ovrd user add NAME --role ROLE    prints her first token
 *   ovrd user token NAME              one more, for who has lost hers
 *   ovrd user list
 */
#ifndef SERVER_USER_COMMAND_H
#define SERVER_USER_COMMAND_H

#include "server/people.h"

#include <stdio.h>

struct user_command {
    const char *verb; /* NULL: it is none */
    const char *name;
    enum level role; /* of add */
};

/* Takes its words out of the command line; what is left are settings. */
int user_command_read(struct user_command *command, int *argc, char **argv, struct ovr_err *err);

int user_command_run(const struct user_command *command, struct store *store, FILE *out,
                     struct ovr_err *err);

/* For containers: the user admin, made if missing, and the token in this file taken as hers. A file
 * that is missing is made, for its owner alone, with a new token. One that was revoked, or whose
 * user is disabled, is not taken, which the log tells. */
int admin_from_file(struct store *store, const char *path, struct ovr_err *err);

#endif
