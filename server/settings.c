#include "server/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct setting {
    const char *name; /* without the dashes */
    const char *unit; /* "TEXT", or for numbers what they count */
    size_t offset;
    int is_number;
    int64_t min, max;
    const char *standard;
    const char *choices; /* for texts: the words allowed, separated by spaces; NULL: any */
    const char *help;
};

#define TEXT(member) offsetof(struct settings, member), 0, 0, 0
#define NUMBER(member, min, max) offsetof(struct settings, member), 1, min, max
#define TIB (1ll << 40)

/* clang-format off */
static const struct setting table[] = {
    {"data-dir", "DIR", TEXT(data_dir), "ovrd-data", NULL, "database, data sets and weights; made if missing"},
    {"listen", "HOST:PORT", TEXT(listen), "127.0.0.1:8080", NULL, "address and port, 0: any free one; beyond loopback once there is an admin"},
    {"host-names", "A,B", TEXT(host_names), "none", NULL, "names by which others call this machine, such as ovrd.lab.org; none: its own"},
    {"tls-cert", "FILE", TEXT(tls_cert), "none", NULL, "PEM certificate and those above it; taken anew when the file changes"},
    {"tls-key", "FILE", TEXT(tls_key), "none", NULL, "PEM key of the certificate; none: plain HTTP"},
    {"admin-token-file", "FILE", TEXT(admin_token_file), "none", NULL, "for containers: the token of user admin, who is made; written if missing"},
    {"visibility", "KIND", TEXT(visibility), "open", "open private", "whether new experiments are seen by all users: open or private"},
    {"user-running", "JOBS", NUMBER(user_running, 0, 100000), "0", NULL, "experiments that a user may have running; 0: any"},
    {"user-queued", "JOBS", NUMBER(user_queued, 0, 10000000), "0", NULL, "experiments that a user may have waiting; 0: any"},
    {"user-storage", "BYTES", NUMBER(user_storage_bytes, 0, 1024 * TIB), "0", NULL, "uploads and results that a user may own; 0: any"},
    {"rate", "REQUESTS", NUMBER(requests_per_second, 0, 1000000), "1000", NULL, "a second, of a user or of an address without token; 10 s of it at once; 0: any"},
    {"wrong-tokens", "N", NUMBER(failures_per_minute, 0, 1000000), "100", NULL, "a minute that an address may try; 0: any"},
    {"address-connections", "N", NUMBER(connections_per_address, 0, 100000), "200", NULL, "open at once from an address other than this machine's; 0: any"},
    {"body-rate", "BYTES", NUMBER(least_body_rate, 0, TIB), "1K", NULL, "a second that a body must come in at, after the idle timeout; 0: any"},
    {"workers", "JOBS", NUMBER(workers, 0, 256), "0", NULL, "experiments that compute at once; 0: as many as cores"},
    {"fair-share-half-life", "SECONDS", NUMBER(half_life_s, 60, 100000000), "86400", NULL, "after so long half of what a user's jobs have used counts no more"},
    {"memory", "BYTES", NUMBER(memory_bytes, 0, 1024 * TIB), "0", NULL, "for all running experiments together; 0: 80 % of the machine's"},
    {"cache", "BYTES", NUMBER(cache_bytes, 0, 1024 * TIB), "16G", NULL, "disk for prepared data that jobs share; 0: keep none"},
    {"model-cache", "BYTES", NUMBER(model_cache_bytes, 0, 1024 * TIB), "1G", NULL, "memory for models that encode and predict; 0: read anew each time"},
    {"isa", "LEVEL", TEXT(isa), "auto", "auto baseline avx2 avx512", "instruction set of the hot loops: auto, baseline, avx2 or avx512"},
    {"blas-kernel", "NAME", TEXT(blas_kernel), "auto", NULL, "OpenBLAS kernel, such as Haswell; auto: what suits the processor"},
    {"http-threads", "N", NUMBER(http_threads, 1, 64), "8", NULL, "threads that answer requests; as many submissions can share a write to the disk"},
    {"max-connections", "N", NUMBER(max_connections, 8, 100000), "1000", NULL, "open connections; more get 503"},
    {"max-watchers", "N", NUMBER(max_watchers, 0, 100000), "500", NULL, "streams of events and waiting requests; more streams get 503"},
    {"idle-timeout", "SECONDS", NUMBER(idle_timeout_s, 1, 3600), "30", NULL, "a connection without traffic is closed"},
    {"max-body", "BYTES", NUMBER(max_body_bytes, 1024, 1 << 30), "1M", NULL, "largest JSON body"},
    {"max-upload", "BYTES", NUMBER(max_upload_bytes, 1024, 1024 * TIB), "16G", NULL, "largest upload of a data set's split"},
    {"checkpoint", "SECONDS", NUMBER(checkpoint_s, 0, 1000000), "60", NULL, "between checkpoints of a running experiment; 0: only when it is interrupted"},
    {"max-crashes", "N", NUMBER(max_crashes, 1, 1000), "10", NULL, "after so many crashes of the daemon under it an experiment fails"},
    {"keep-backups", "N", NUMBER(keep_backups, 0, 100000), "0", NULL, "newest backups that stay when one is made; 0: all"},
    {"slurm", "on|off", TEXT(slurm), "off", "off on", "a Slurm cluster that experiments may be sent to: see docs/slurm.md"},
    {"slurm-directory", "DIR", TEXT(slurm_directory), "none", NULL, "where sbatch, squeue, scancel are, and srun on the nodes; none: by PATH"},
    {"slurm-options", "WORDS", TEXT(slurm_options), "none", NULL, "more of sbatch, between blanks, such as --slurm-options=\"--partition=cpu --account=lab\""},
    {"slurm-worker", "PATH", TEXT(slurm_worker), "ovr-worker", NULL, "the program ovr-worker on the nodes; without a slash: by their PATH"},
    {"worker-url", "URL", TEXT(worker_url), "none", NULL, "where the nodes reach this daemon, such as https://ovrd.lab.org:8080"},
    {"worker-ca", "FILE", TEXT(worker_ca), "none", NULL, "on the nodes: the authority of this daemon's certificate; none: the system's"},
    {"slurm-shared-data", "yes|no", TEXT(slurm_shared_data), "no", "no yes", "whether the nodes see the data directory under the same name"},
    {"slurm-jobs", "JOBS", NUMBER(slurm_jobs, 1, 100000), "50", NULL, "experiments that may be in Slurm's queue and run there at once"},
    {"slurm-cores", "N", NUMBER(slurm_cores, 1, 256), "4", NULL, "cores of a rank on the cluster, where the spec leaves it open"},
    {"slurm-node-memory", "BYTES", NUMBER(slurm_node_bytes, 0, 1024 * TIB), "0", NULL, "memory that a rank may have on the cluster; 0: any"},
    {"slurm-max-minutes", "MINUTES", NUMBER(slurm_max_minutes, 0, 525600), "0", NULL, "longest time limit of a job; 0: four times what is estimated"},
    {"slurm-above-memory", "BYTES", NUMBER(slurm_above_bytes, 0, 1024 * TIB), "0", NULL, "experiments that need more go to the cluster; 0: those that do not fit here"},
    {"slurm-above-hours", "HOURS", NUMBER(slurm_above_hours, 0, 1000000), "0", NULL, "of one core: experiments that take longer go to the cluster; 0: any time"},
    {"slurm-poll", "SECONDS", NUMBER(slurm_poll_s, 1, 3600), "5", NULL, "between two looks at Slurm's queue"},
    {"slurm-lease", "SECONDS", NUMBER(slurm_lease_s, 10, 86400), "120", NULL, "a worker that was not heard of for so long has lost its experiment"},
    {"retention-days", "DAYS", NUMBER(retention_days, 0, 100000), "0", NULL, "after so long since their end experiments are deleted, except those with the tag keep; 0: never"},
    {"retention-failed-days", "DAYS", NUMBER(retention_failed_days, 0, 100000), "0", NULL, "the same of those that failed or were cancelled; 0: as --retention-days says"},
    {"log-level", "LEVEL", TEXT(log_level), "info", "debug info warn error", "debug, info, warn or error"},
};
/* clang-format on */

enum { N_SETTINGS = sizeof table / sizeof *table };

static void environment_name(const struct setting *s, char name[64]) {
    snprintf(name, 64, "OVRD_%s", s->name);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

/* "64M" → 67108864. Returns −1 when it is no number. */
static int64_t parse_number(const char *text) {
    static const char suffixes[] = "KMGT";
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || errno || value < 0)
        return -1;
    const char *suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
    if (*end && (!suffix || end[1]))
        return -1;
    int shift = suffix ? (int)(suffix - suffixes + 1) * 10 : 0;
    return value > INT64_MAX >> shift ? -1 : (int64_t)(value << shift);
}

static int is_choice(const char *choices, const char *word) {
    size_t n = strlen(word);
    if (strchr(word, ' '))
        return 0;
    for (const char *at = choices; (at = strstr(at, word)) && n; at += n)
        if ((at == choices || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
            return 1;
    return 0;
}

static int set(struct settings *settings, const struct setting *s, const char *text,
               const char *where, struct ovr_err *err) {
    void *to = (char *)settings + s->offset;
    if (!s->is_number) {
        if (!*text || (s->choices && !is_choice(s->choices, text)))
            return ovr_fail(err, OVR_INVALID, where, "%s must be %s%s, got \"%.60s\"", where,
                            s->choices ? "one of " : "a text that is not empty",
                            s->choices ? s->choices : "", text);
        *(const char **)to = text;
        return 0;
    }
    int64_t value = parse_number(text);
    if (value < s->min || value > s->max)
        return ovr_fail(err, OVR_INVALID, where,
                        "%s must be a number %lld..%lld (K, M, G, T may follow), got \"%.60s\"",
                        where, (long long)s->min, (long long)s->max, text);
    *(int64_t *)to = value;
    return 0;
}

static const struct setting *find(const char *name, size_t n) {
    for (int i = 0; i < N_SETTINGS; i++)
        if (strlen(table[i].name) == n && strncmp(table[i].name, name, n) == 0)
            return &table[i];
    return NULL;
}

/* One flag, "--name value" or "--name=value"; *i moves to the last word used. */
static int read_flag(struct settings *settings, int argc, char **argv, int *i,
                     struct ovr_err *err) {
    const char *flag = argv[*i];
    size_t n = strncmp(flag, "--", 2) == 0 ? strcspn(flag + 2, "=") : 0;
    const struct setting *s = n ? find(flag + 2, n) : NULL;
    if (!s)
        return ovr_fail(err, OVR_INVALID, flag, "there is no option %.60s; see ovrd --help", flag);
    const char *value = flag[2 + n] == '=' ? flag + 3 + n : NULL;
    if (!value && *i + 1 < argc && strncmp(argv[*i + 1], "--", 2))
        value = argv[++*i];
    char name[64];
    snprintf(name, sizeof name, "--%s", s->name);
    if (!value && *i + 1 < argc)
        return ovr_fail(err, OVR_INVALID, name,
                        "%s needs a value (%s); one that begins with -- follows a =: %s=%.60s",
                        name, s->unit, name, argv[*i + 1]);
    if (!value)
        return ovr_fail(err, OVR_INVALID, name, "%s needs a value (%s)", name, s->unit);
    return set(settings, s, value, name, err);
}

int settings_read(struct settings *settings, enum settings_action *action, int argc, char **argv,
                  struct ovr_err *err) {
    *action = SETTINGS_RUN;
    for (int i = 0; i < N_SETTINGS; i++) {
        char name[64];
        environment_name(&table[i], name);
        const char *text = getenv(name);
        int rc = set(settings, &table[i], text ? text : table[i].standard, name, err);
        if (rc)
            return rc;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            *action = SETTINGS_HELP;
        else if (strcmp(argv[i], "--manual") == 0)
            *action = SETTINGS_MANUAL;
        else if (strcmp(argv[i], "--version") == 0)
            *action = SETTINGS_VERSION;
        else if (read_flag(settings, argc, argv, &i, err))
            return err ? err->code : OVR_INVALID;
    }
    return 0;
}

void settings_help(FILE *out) {
    fprintf(
        out,
        "ovrd %s: network training service for sparse representation learning\n\n"
        "usage: ovrd [--option value]...\n"
        "       ovrd user add NAME --role admin|member|viewer   prints her token; then --data-dir\n"
        "       ovrd user token NAME                            one more\n"
        "       ovrd user list\n\n",
        OVRD_VERSION);
    for (int i = 0; i < N_SETTINGS; i++) {
        char flag[48], name[64];
        snprintf(flag, sizeof flag, "--%s %s", table[i].name, table[i].unit);
        environment_name(&table[i], name);
        fprintf(out, "  %-26s %s\n  %-26s default %s, environment %s\n", flag, table[i].help, "",
                table[i].standard, name);
    }
    fprintf(out,
            "  %-26s this text\n  %-26s the same as a manual page: man -l <(ovrd --manual)\n"
            "  %-26s program, BLAS and processor\n",
            "--help", "--manual", "--version");
}

/* A text for troff. */
static void put_text(FILE *out, const char *text) {
    for (; *text; text++)
        fprintf(out, *text == '-' ? "\\-" : *text == '\'' ? "\\(aq" : "%c", *text);
}

void settings_manual(FILE *out) {
    fprintf(
        out,
        ".TH OVRD 8 \"\" \"ovrd %s\" \"System Administration\"\n.SH NAME\n"
        "ovrd \\- network training service for sparse representation learning\n.SH SYNOPSIS\n"
        ".B ovrd\n[\\fB\\-\\-option\\fR \\fIvalue\\fR]...\n.br\n"
        ".B ovrd user add\n\\fINAME\\fR \\-\\-role admin|member|viewer\n.br\n"
        ".B ovrd user token\n\\fINAME\\fR\n.br\n.B ovrd user list\n.SH DESCRIPTION\n"
        "Takes experiments over HTTP, queues them, trains, and serves metrics, sparsity histograms "
        "and weights. Prints one line with its address once it serves; the log goes to standard "
        "error. SIGTERM saves what runs and ends it within 10 s; it goes on at the next "
        "start.\n.PP\n"
        "\\fBuser add\\fR makes a user while no daemon runs on the data directory, and prints her "
        "token. Beside a live daemon, \\fBovrctl user\\fR does it.\n"
        ".SH OPTIONS\nAn option wins over its environment variable, that over the default.\n",
        OVRD_VERSION);
    for (int i = 0; i < N_SETTINGS; i++) {
        char name[64];
        environment_name(&table[i], name);
        fprintf(out, ".TP\n\\fB\\-\\-");
        put_text(out, table[i].name);
        fprintf(out, "\\fR \\fI%s\\fR\n", table[i].unit);
        put_text(out, table[i].help);
        fprintf(out, " (default %s, environment %s)\n", table[i].standard, name);
    }
    fprintf(out, ".SH SEE ALSO\n.BR ovrctl (1)\n");
}
