#include "server/slurm.h"

#include "core/utf8.h"
#include "server/command.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In one call, since a line of arguments has a bound. */
enum { BATCH = 100 };

/* A program's arguments, with the room for their text. */
struct words {
    const char *argv[BATCH + 40];
    size_t n, used;
    char text[BATCH * 48 + 4096];
    int too_long;
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *format,
                                                      ...) {
    char *word = words->text + words->used;
    size_t room = sizeof words->text - words->used;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(word, room, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room || words->n + 1 >= sizeof words->argv / sizeof *words->argv) {
        words->too_long = 1;
        return;
    }
    words->used += (size_t)n + 1;
    words->argv[words->n++] = word;
    words->argv[words->n] = NULL;
}

static void begin(struct words *words, const struct slurm *slurm, const char *program) {
    words->n = words->used = 0;
    words->too_long = 0;
    add(words, "%s%s%s", slurm->directory, *slurm->directory ? "/" : "", program);
}

static int run(const struct slurm *slurm, const struct words *words, struct command *command,
               struct ovr_err *err) {
    if (words->too_long)
        return ovr_fail(err, OVR_INVALID, "--slurm-options", "the options of sbatch are too long");
    command->argv = words->argv;
    command->timeout_s = slurm->timeout_s;
    command->stop = slurm->stop;
    return command_run(command, err);
}

/* Whether Slurm answers makes no difference here: it may be down when the machine starts. */
int slurm_check(const struct slurm *slurm, struct ovr_err *err) {
    static const char *const programs[] = {"sbatch", "squeue", "scancel"};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        struct words words;
        struct command command = {0};
        struct ovr_err why = {0};
        begin(&words, slurm, programs[i]);
        add(&words, "--version");
        if (run(slurm, &words, &command, &why) == OVR_NOT_FOUND)
            return ovr_fail(err, OVR_NOT_FOUND, "--slurm-directory",
                            "%s; install Slurm's programs, or say with --slurm-directory where "
                            "they are",
                            why.text);
    }
    return 0;
}

/* sbatch */

/* A job's output goes there, below its node's directory unless the options say otherwise. */
#define CHDIR "/tmp"
#define OUTPUT "ovr-worker-%j.out"

/* What Slurm says when it refuses a job, and what that means; the first that is found counts. Of
 * what is not here any other job would be refused as well: a partition, an account that is not
 * there. */
static const struct refusal {
    const char *words;
    int code;
} refusals[] = {
    {"MaxSubmit", OVR_FULL}, /* QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit, ... */
    {"temporarily un", OVR_FULL},
    {"PerNodeLimit", OVR_TOO_LARGE},
    {"PerJobLimit", OVR_TOO_LARGE},
    {"Job violates accounting/QOS policy", OVR_FULL},
    {"node configuration is not available", OVR_TOO_LARGE},
    {"Requested time limit is invalid", OVR_TOO_LARGE},
    {"Memory specification can not be satisfied", OVR_TOO_LARGE},
    {"CPU count per node can not be satisfied", OVR_TOO_LARGE},
    {"More processors requested than permitted", OVR_TOO_LARGE},
    {"Node count specification invalid", OVR_TOO_LARGE},
    {"Unable to contact slurm controller", OVR_IO},
    {"timed out", OVR_IO},
    {"Zero Bytes were transmitted", OVR_IO},
    {"onnect", OVR_IO}, /* connection failure, Transport endpoint is not connected, ... */
    {"uthentication", OVR_IO},
    {"unge", OVR_IO},
    {"standby mode", OVR_IO},
};

static int judge_refusal(const char *complaint) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        if (strstr(complaint, refusals[i].words))
            return refusals[i].code;
    return OVR_INVALID;
}

/* What it complained of, as one sentence: several lines, each with "sbatch: error: " before it. */
static void read_complaint(const char *complaint, char *text, size_t size) {
    size_t used = 0;
    *text = '\0';
    for (const char *line = complaint; *line && used < size;) {
        static const char *const starts[] = {"sbatch: ", "error: "};
        size_t n = strcspn(line, "\n");
        const char *next = line + n + (line[n] == '\n');
        for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
            if (strncmp(line, starts[i], strlen(starts[i])) == 0)
                line += strlen(starts[i]);
        if (line < next && *line != '\n')
            used += (size_t)snprintf(text + used, size - used, "%s%.*s", used ? "; " : "",
                                     (int)strcspn(line, "\n"), line);
        line = next;
    }
}

static int refuse(const struct command *command, const struct ovr_err *why,
                  const struct slurm_job *job, struct ovr_err *err) {
    char said[COMMAND_COMPLAINT_SIZE];
    int code = judge_refusal(command->complaint);
    read_complaint(*command->complaint ? command->complaint : why->text, said, sizeof said);
    if (code == OVR_TOO_LARGE)
        return ovr_fail(err, code, "sbatch",
                        "Slurm says: %.190s (asked for %d rank%s, each of %d cores and %lld MiB; "
                        "see training.threads, --slurm-cores, --slurm-max-minutes, "
                        "--slurm-options)",
                        said, job->ranks, job->ranks == 1 ? "" : "s", job->cores_per_rank,
                        job->memory_bytes_per_rank >> 20);
    return ovr_fail(err, code, "sbatch", "Slurm says: %.300s%s", said,
                    code == OVR_INVALID ? " (see --slurm-options)" : "");
}

/* Of the end of a job's time. Slurm may give it a minute earlier, and a short job is to get on
 * before. */
static int notice_s(int minutes) {
    return minutes > 0 && minutes < 6 ? minutes * 10 : 60;
}

static void add_limits(struct words *words, const struct slurm_job *job) {
    const long long mib = 1 << 20;
    long long bytes = job->memory_bytes_per_rank / job->cores_per_rank;
    add(words, "--ntasks=%d", job->ranks);
    add(words, "--cpus-per-task=%d", job->cores_per_rank);
    if (bytes > 0)
        add(words, "--mem-per-cpu=%lldM", (bytes + mib - 1) / mib);
    if (job->minutes)
        add(words, "--time=%d", job->minutes);
    add(words, "--signal=%sTERM@%d", job->ranks == 1 ? "B:" : "", notice_s(job->minutes));
}

static void add_options(struct words *words, const char *options) {
    while (*(options += strspn(options, " "))) {
        size_t n = strcspn(options, " ");
        add(words, "%.*s", (int)n, options);
        options += n;
    }
}

/* "1234\n" or "1234;cluster\n". */
static int read_id(const char *output, char id[32]) {
    size_t n = strspn(output, "0123456789");
    if (n == 0 || n > 20 || !strchr(";\n", output[n]))
        return -1;
    memcpy(id, output, n);
    id[n] = '\0';
    return 0;
}

void slurm_output(const struct slurm *slurm, const char *id, char *path, size_t size) {
    static const char OPTION[] = "--output=";
    const char *given = strstr(slurm->options, OPTION);
    const char *pattern = given ? given + strlen(OPTION) : CHDIR "/" OUTPUT;
    size_t n = strcspn(pattern, " "), before = 0;
    while (before < n && strncmp(pattern + before, "%j", 2) != 0)
        before++;
    int has_id = before < n;
    size_t after = has_id ? before + 2 : n;
    snprintf(path, size, "%.*s%s%.*s", (int)before, pattern, has_id ? id : "", (int)(n - after),
             pattern + after);
}

int slurm_submit(const struct slurm *slurm, const struct slurm_job *job, char id[32],
                 struct ovr_err *err) {
    struct words words;
    char output[256];
    struct ovr_err why = {0};
    begin(&words, slurm, "sbatch");
    add(&words, "--parsable");
    add(&words, "--no-requeue");
    add(&words, "--export=NIL");
    add(&words, "--chdir=%s", CHDIR);
    add(&words, "--output=%s", OUTPUT);
    add(&words, "--job-name=%s", job->name);
    add_limits(&words, job);
    add_options(&words, slurm->options);
    struct command command = {.input = job->script,
                              .output = output,
                              .output_size = sizeof output,
                              .enough =
                                  "sleeping and retrying"}; /* a full queue: we try ourselves */
    int rc = run(slurm, &words, &command, &why);
    if (rc == OVR_INVALID && !words.too_long)
        return refuse(&command, &why, job, err);
    if (rc)
        return ovr_fail(err, rc, why.field, "%s", why.text);
    if (read_id(output, id))
        return ovr_fail(err, OVR_IO, "sbatch", "sbatch gave no job number but \"%.100s\"", output);
    return 0;
}

/* squeue */

static const struct meaning {
    const char *word;
    enum slurm_state state;
} meanings[] = {
    {"PENDING", SLURM_WAITS},        {"CONFIGURING", SLURM_WAITS},   {"REQUEUED", SLURM_WAITS},
    {"REQUEUE_FED", SLURM_WAITS},    {"REQUEUE_HOLD", SLURM_WAITS},  {"SPECIAL_EXIT", SLURM_WAITS},
    {"RESV_DEL_HOLD", SLURM_WAITS},  {"COMPLETED", SLURM_DONE},      {"FAILED", SLURM_FAILED},
    {"OUT_OF_MEMORY", SLURM_FAILED}, {"CANCELLED", SLURM_CANCELLED}, {"REVOKED", SLURM_CANCELLED},
    {"TIMEOUT", SLURM_LOST},         {"NODE_FAIL", SLURM_LOST},      {"PREEMPTED", SLURM_LOST},
    {"BOOT_FAIL", SLURM_LOST},       {"DEADLINE", SLURM_LOST},
};

/* Words that a later Slurm may have are those of a job that is on its node. */
static enum slurm_state read_state(const char *word) {
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (strcmp(word, meanings[i].word) == 0)
            return meanings[i].state;
    return SLURM_RUNS;
}

static void copy(char *to, size_t size, const char *from) {
    int nothing = strcmp(from, "None") == 0 || strcmp(from, "(null)") == 0;
    snprintf(to, size, "%s", nothing ? "" : from);
    utf8_mend(to);
}

/* "%i|%j|%T|%r|%N", cut up in place. Returns 0 for what is none. */
static int read_line(char *line, struct slurm_status *status) {
    char *part[5];
    for (int i = 0; i < 5; i++)
        if (!(part[i] = strsep(&line, "|")))
            return 0;
    if (!isdigit((unsigned char)*part[0]))
        return 0;
    copy(status->id, sizeof status->id, part[0]);
    copy(status->name, sizeof status->name, part[1]);
    copy(status->word, sizeof status->word, part[2]);
    copy(status->reason, sizeof status->reason, part[3]);
    copy(status->node, sizeof status->node, part[4]);
    status->state = read_state(part[2]);
    return 1;
}

struct statuses {
    struct slurm_status *list;
    size_t n, room;
};

/* The newest of its name stays, unless each counts. */
static int keep(struct statuses *found, const struct slurm_status *status, int each) {
    for (size_t i = 0; !each && i < found->n; i++)
        if (strcmp(found->list[i].name, status->name) == 0) {
            if (atoll(status->id) > atoll(found->list[i].id))
                found->list[i] = *status;
            return 0;
        }
    if (found->n == found->room) {
        size_t room = found->room ? 2 * found->room : 16;
        struct slurm_status *list = realloc(found->list, room * sizeof *list);
        if (!list)
            return OVR_NOMEM;
        found->list = list;
        found->room = room;
    }
    found->list[found->n++] = *status;
    return 0;
}

/* Runs squeue and adds those whose names begin so. */
static int ask(const struct slurm *slurm, const struct words *words, const char *prefix,
               struct statuses *found, struct ovr_err *err) {
    enum { OUTPUT_SIZE = 4 << 20 };
    struct ovr_err why = {0};
    struct command command = {.output = malloc(OUTPUT_SIZE), .output_size = OUTPUT_SIZE};
    if (!command.output)
        return ovr_nomem(err, "Slurm's list of jobs");
    int rc = run(slurm, words, &command, &why);
    if (rc)
        ovr_fail(err, rc = rc == OVR_INVALID ? OVR_IO : rc, why.field, "%s", why.text);
    char *rest = command.output, *line;
    while (!rc && (line = strsep(&rest, "\n"))) {
        struct slurm_status status;
        if (!read_line(line, &status) || strncmp(status.name, prefix, strlen(prefix)))
            continue;
        if (keep(found, &status, *prefix != '\0'))
            rc = ovr_nomem(err, "Slurm's list of jobs");
    }
    free(command.output);
    return rc;
}

static void begin_squeue(struct words *words, const struct slurm *slurm) {
    begin(words, slurm, "squeue");
    add(words, "--noheader");
    add(words, "--user=%u", (unsigned)getuid());
    add(words, "--format=%%i|%%j|%%T|%%r|%%N");
}

static void add_names(struct words *words, const char *const *names, size_t n) {
    char list[BATCH * 48];
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? "," : "", names[i]);
    add(words, "--name=%s", list);
}

int slurm_poll(const struct slurm *slurm, const char *const *names, size_t n,
               struct slurm_status **list, size_t *n_found, struct ovr_err *err) {
    struct statuses found = {0};
    struct words words;
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i += BATCH) {
        begin_squeue(&words, slurm);
        add(&words, "--states=all");
        add_names(&words, names + i, n - i < BATCH ? n - i : BATCH);
        rc = ask(slurm, &words, "", &found, err);
    }
    if (rc) {
        free(found.list);
        return rc;
    }
    *list = found.list;
    *n_found = found.n;
    return 0;
}

int slurm_list(const struct slurm *slurm, const char *prefix, struct slurm_status **list,
               size_t *n_found, struct ovr_err *err) {
    struct statuses found = {0};
    struct words words;
    begin_squeue(&words, slurm);
    int rc = ask(slurm, &words, prefix, &found, err);
    if (rc) {
        free(found.list);
        return rc;
    }
    *list = found.list;
    *n_found = found.n;
    return 0;
}

/* scancel */

/* Whether each line of what scancel said is of a job that is over. */
static int only_of_old_ones(const char *complaint) {
    for (const char *line = complaint; *line;) {
        size_t n = strcspn(line, "\n");
        char text[COMMAND_COMPLAINT_SIZE];
        snprintf(text, sizeof text, "%.*s", (int)n, line);
        if (n && !strstr(text, "Invalid job id") && !strstr(text, "already compl"))
            return 0;
        line += n + (line[n] == '\n');
    }
    return *complaint != '\0';
}

int slurm_cancel(const struct slurm *slurm, const char *const *ids, size_t n, struct ovr_err *err) {
    enum { AT_ONCE = 4 }; /* each may be complained of, and all of it is read */
    for (size_t i = 0; i < n; i += AT_ONCE) {
        struct words words;
        struct ovr_err why = {0};
        struct command command = {0};
        begin(&words, slurm, "scancel");
        for (size_t k = i; k < n && k < i + AT_ONCE; k++)
            add(&words, "%s", ids[k]);
        int rc = run(slurm, &words, &command, &why);
        if (rc == OVR_INVALID && only_of_old_ones(command.complaint))
            continue;
        if (rc)
            return ovr_fail(err, rc == OVR_INVALID ? OVR_IO : rc, why.field, "%s", why.text);
    }
    return 0;
}
