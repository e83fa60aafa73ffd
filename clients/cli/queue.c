/* What runs, what waits, in which order and why. */
#include "clients/cli/api.h"
#include "clients/cli/value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A name in few columns, so that the reason has room. */
static void name_cell(struct table *table, const json_t *entry) {
    enum { MOST = 20 };
    const char *name = value_string(entry, "name");
    if (!json_is_string(value_at(entry, "id")))
        table_cell(table, "(private)");
    else if (text_columns(name) > MOST)
        table_cell(table, "%.*s…", (int)text_cut(name, MOST - 1), name);
    else
        table_cell(table, "%s", name);
}

static void text_or_dash(struct table *table, const char *text) {
    table_cell(table, "%s", *text ? text : "-");
}

/* How long it is until a time; "-" where that is not known. */
static void until_cell(struct table *table, const json_t *entry, const char *member) {
    char figure[FIGURE_ROOM];
    double seconds = text_time(value_string(entry, member)) - (double)time(NULL);
    table_cell(table, "%s", text_duration(figure, seconds < 0 ? 0 : seconds)); /* NaN stays */
}

/* The last column only where there is a cluster. */
static int print_running(const json_t *running, bool cluster) {
    static const struct column columns[] = {{"running", false, false}, {"name", false, false},
                                            {"owner", false, false},   {"threads", true, false},
                                            {"memory", true, false},   {"ends in", true, false},
                                            {"where", false, false}};
    struct table table = {.columns = columns,
                          .n_columns = sizeof columns / sizeof *columns - !cluster};
    char figure[FIGURE_ROOM];
    size_t i;
    const json_t *entry;
    json_array_foreach(running, i, entry) {
        text_or_dash(&table, value_string(entry, "id"));
        name_cell(&table, entry);
        text_or_dash(&table, value_string(entry, "owner"));
        table_cell(&table, "%.0f", value_number(entry, "threads"));
        table_cell(&table, "%s", text_bytes(figure, value_number(entry, "memory_bytes")));
        until_cell(&table, entry, "estimated_end");
        const char *node = value_string(entry, "node");
        if (cluster)
            table_cell(&table, "%s", *node ? node : value_string(entry, "executor"));
    }
    return table_print(&table);
}

/* The reason begins with the place, which has a column of its own, and ends with the time. Why it
 * waits again may be what it waits for now. */
static void reason_cell(struct table *table, const json_t *entry) {
    const char *reason = value_string(entry, "reason");
    const char *because = value_string(entry, "requeued_because");
    const char *from = strstr(reason, " in line"), *colon = from ? strchr(from, ';') : NULL;
    const char *why = colon ? colon + strlen("; ") : reason;
    const char *when = strstr(why, "; starts ");
    bool again = *because && !strstr(reason, because);
    table_cell(table, "%.*s%s%s", when ? (int)(when - why) : (int)strlen(why), why,
               again ? "; " : "", again ? because : "");
}

static int print_waiting(const json_t *waiting) {
    static const struct column columns[] = {{"", true, false},         {"waiting", false, false},
                                            {"name", false, false},    {"owner", false, false},
                                            {"priority", true, false}, {"starts in", true, false},
                                            {"because", false, true}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    size_t i;
    const json_t *entry;
    json_array_foreach(waiting, i, entry) {
        table_cell(&table, "%.0f", value_number(entry, "position"));
        text_or_dash(&table, value_string(entry, "id"));
        name_cell(&table, entry);
        text_or_dash(&table, value_string(entry, "owner"));
        table_cell(&table, "%.0f", value_number(entry, "priority"));
        until_cell(&table, entry, "estimated_start");
        reason_cell(&table, entry);
    }
    return table_print(&table);
}

static int print_users(const json_t *users) {
    static const struct column columns[] = {{"user", false, false},
                                            {"used lately", true, false},
                                            {"cores", true, false},
                                            {"running", true, false},
                                            {"waiting", true, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    char figure[FIGURE_ROOM];
    size_t i;
    const json_t *user;
    json_array_foreach(users, i, user) {
        double most = value_number(user, "max_running");
        text_or_dash(&table, value_string(user, "name"));
        table_cell(&table, "%s core-h",
                   text_fixed(figure, value_number(user, "recent_core_seconds") / 3600, 2));
        table_cell(&table, "%.0f", value_number(user, "cores"));
        if (isnan(most))
            table_cell(&table, "%.0f", value_number(user, "running"));
        else
            table_cell(&table, "%.0f of %.0f", value_number(user, "running"), most);
        table_cell(&table, "%.0f", value_number(user, "waiting"));
    }
    return table_print(&table);
}

static void print_cluster(const json_t *cluster) {
    const char *trouble = value_string(cluster, "trouble");
    printf("Slurm: %.0f wait there and %.0f run, of at most %.0f%s%s\n",
           value_number(cluster, "sent"), value_number(cluster, "running"),
           value_number(cluster, "most"), *trouble ? "; " : "", trouble);
}

static int print_queue(struct cli *cli, const json_t *queue) {
    const json_t *running = value_at(queue, "running"), *waiting = value_at(queue, "waiting");
    const json_t *users = value_at(queue, "users");
    char free[FIGURE_ROOM], total[FIGURE_ROOM];
    if (!json_is_array(running) || !json_is_array(waiting) || !json_is_array(users))
        return api_complain_nonsense(cli);
    printf("%.0f of %.0f workers busy, %.0f threads on %.0f cores, %s of %s free\n",
           value_number(queue, "workers.busy"), value_number(queue, "workers.total"),
           value_number(queue, "cores.threads"), value_number(queue, "cores.total"),
           text_bytes(free, value_number(queue, "memory.free_bytes")),
           text_bytes(total, value_number(queue, "memory.total_bytes")));
    const json_t *cluster = value_at(queue, "cluster");
    if (json_is_object(cluster))
        print_cluster(cluster);
    int failed = json_array_size(running) &&
                 (putchar('\n'), print_running(running, json_is_object(cluster)));
    failed |= json_array_size(waiting) && (putchar('\n'), print_waiting(waiting));
    double more = value_number(queue, "waiting_total") - (double)json_array_size(waiting);
    if (!failed && more > 0)
        printf("and %.0f more\n", more);
    failed |= json_array_size(users) > 1 && (putchar('\n'), print_users(users));
    return failed ? api_complain_memory() : EXIT_OK;
}

int command_queue(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/queue");
    buf_query(&path, "limit", cli->options.limit);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_queue(cli, answer);
    json_decref(answer);
    return code;
}
