#include "clients/cli/study.h"

#include "clients/cli/api.h"
#include "clients/cli/value.h"
#include "clients/reproduce/figure.h"
#include "clients/reproduce/rule.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* RFC 7396. Returns what the target became; takes over both references. NULL: no memory. */
static json_t *merge(json_t *target, json_t *patch) {
    const char *name;
    json_t *change;
    if (!json_is_object(patch)) {
        json_decref(target);
        return json_incref(patch);
    }
    if (!json_is_object(target)) {
        json_decref(target);
        target = json_object();
    }
    json_object_foreach(patch, name, change) {
        if (!target)
            return NULL;
        if (json_is_null(change)) {
            json_object_del(target, name);
            continue;
        }
        json_t *merged = merge(json_incref(json_object_get(target, name)), change);
        if (!merged || json_object_set_new(target, name, merged)) {
            json_decref(target);
            return NULL;
        }
    }
    return target;
}

/* Reads DIRECTORY/below/ID.json. A file that is not there is EXIT_OK and NULL where it may miss. */
static int read_json(json_t **json, const char *directory, const char *below, const char *id,
                     bool may_miss) {
    struct buf path = {0};
    json_error_t error;
    int code = EXIT_OK;
    buf_addf(&path, "%s/%s%s.json", directory, below, id);
    *json = NULL;
    if (path.failed)
        return api_complain_memory();
    if (access(path.data, R_OK)) {
        if (!may_miss || errno != ENOENT)
            code = complain(EXIT_USAGE, "cannot read %s: %s", path.data, strerror(errno));
    } else if (!(*json = json_load_file(path.data, JSON_REJECT_DUPLICATES, &error))) {
        code = complain(EXIT_USAGE, "%s, line %d: %s", path.data, error.line, error.text);
    } else if (!json_is_object(*json)) {
        code = complain(EXIT_USAGE, "%s is not a JSON object", path.data);
    }
    buf_release(&path);
    return code;
}

static int check_description(const struct study *study) {
    const json_t *figures = json_object_get(study->description, "figures"), *figure;
    struct buf fault = {0};
    size_t i;
    int code = EXIT_OK;
    if (!*value_string(study->description, "title") || !json_is_array(figures))
        code = complain(EXIT_USAGE, "figures/%s.json has no title or no figures", study->id);
    json_array_foreach(figures, i, figure) {
        if (!code && !figure_is_valid(figure, &fault))
            code = complain(EXIT_USAGE, "figures/%s.json, figure %zu: %s", study->id, i + 1,
                            fault.data ? fault.data : "not enough memory");
    }
    buf_release(&fault);
    return code;
}

static int load_study(struct study *study, const char *directory, const char *id, bool quick) {
    study->seconds = NAN;
    study->id = strdup(id);
    if (!study->id)
        return api_complain_memory();
    if (strchr(id, '/'))
        return complain(EXIT_USAGE, "an id has no slashes: %s", id);
    int code = read_json(&study->description, directory, "figures/", id, true);
    if (!code && !study->description)
        code = complain(EXIT_USAGE,
                        "there is no experiment %s in %s; 'ovrctl reproduce --dry-run' lists all",
                        id, directory);
    if (!code)
        code = check_description(study);
    if (!code)
        code = read_json(&study->document, directory, "", id, false);
    if (!code && quick)
        code = read_json(&study->reductions, directory, "quick/", id, true);
    if (code)
        return code;
    if (study->reductions)
        study->document = merge(study->document, study->reductions);
    size_t n = json_array_size(json_object_get(study->description, "figures"));
    study->judgements = calloc(n + 1, sizeof *study->judgements);
    study->experiments = json_array();
    study->epochs = json_array();
    study->bins = json_array();
    study->sweep = json_object_get(study->document, "base") != NULL;
    bool complete =
        study->document && study->judgements && study->experiments && study->epochs && study->bins;
    return complete ? EXIT_OK : api_complain_memory();
}

static int add_study(struct studies *studies, const char *directory, const char *id, bool quick) {
    struct study *list = realloc(studies->list, (studies->n + 1) * sizeof *list);
    if (!list)
        return api_complain_memory();
    studies->list = list;
    list[studies->n] = (struct study){0};
    return load_study(&list[studies->n++], directory, id, quick);
}

static int by_order(const void *a, const void *b) {
    const struct study *one = a, *other = b;
    double difference =
        value_number(one->description, "order") - value_number(other->description, "order");
    return difference < 0 ? -1 : difference > 0 ? 1 : strcmp(one->id, other->id);
}

static int add_all(struct studies *studies, const char *directory, bool quick) {
    struct buf path = {0};
    int code = EXIT_OK;
    buf_addf(&path, "%s/figures", directory);
    DIR *figures = path.data ? opendir(path.data) : NULL;
    if (!figures)
        code = complain(EXIT_USAGE, "no examples in %s: %s; name their directory by --examples",
                        directory, strerror(errno));
    for (struct dirent *entry; figures && !code && (entry = readdir(figures));) {
        size_t n = strlen(entry->d_name);
        if (n <= 5 || strcmp(entry->d_name + n - 5, ".json"))
            continue;
        entry->d_name[n - 5] = '\0';
        code = add_study(studies, directory, entry->d_name, quick);
    }
    if (figures)
        closedir(figures);
    buf_release(&path);
    if (!code && !studies->n)
        code = complain(EXIT_USAGE, "no examples in %s/figures", directory);
    if (!code)
        qsort(studies->list, studies->n, sizeof *studies->list, by_order);
    return code;
}

int studies_load(struct studies *studies, const char *directory, char **ids, bool quick) {
    int code = EXIT_OK;
    *studies = (struct studies){0};
    if (!*ids)
        return add_all(studies, directory, quick);
    for (; *ids && !code; ids++)
        code = add_study(studies, directory, *ids, quick);
    return code;
}

static void study_release(struct study *study) {
    size_t n = json_array_size(json_object_get(study->description, "figures"));
    for (size_t i = 0; i < n && study->judgements; i++)
        judgement_release(&study->judgements[i]);
    free(study->judgements);
    json_decref(study->document);
    json_decref(study->reductions);
    json_decref(study->description);
    json_decref(study->experiments);
    json_decref(study->epochs);
    json_decref(study->bins);
    buf_release(&study->trouble);
    free(study->id);
}

void studies_release(struct studies *studies) {
    for (size_t i = 0; i < studies->n; i++)
        study_release(&studies->list[i]);
    free(studies->list);
    *studies = (struct studies){0};
}

/* Adds the "name" below every member "dataset", wherever in the document it stands. */
static void add_datasets(json_t *names, const json_t *value) {
    const char *member;
    json_t *inner;
    size_t i;
    const char *name = value_string(value, "dataset.name");
    if (*name)
        json_object_set_new(names, name, json_true());
    json_object_foreach((json_t *)value, member, inner) add_datasets(names, inner);
    json_array_foreach(value, i, inner) add_datasets(names, inner);
}

json_t *study_datasets(const struct study *study) {
    json_t *names = json_object();
    add_datasets(names, study->document);
    return names;
}

/* FNV-1a. Two documents with the same number are refused by the server, not mixed up. */
static uint64_t digest(uint64_t hash, const char *text) {
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
    return hash;
}

void study_key(char key[IDEMPOTENCY_KEY_MAX + 1], const struct study *study, const char *data) {
    char *text = json_dumps(study->document, JSON_COMPACT | JSON_SORT_KEYS);
    uint64_t hash = digest(digest(0xcbf29ce484222325, text ? text : ""), data);
    snprintf(key, IDEMPOTENCY_KEY_MAX + 1, "reproduce-%.100s-%016llx", study->id,
             (unsigned long long)hash);
    free(text);
}

bool study_shows(const struct study *study, const char *rows) {
    size_t i;
    const json_t *figure;
    json_array_foreach(json_object_get(study->description, "figures"), i, figure) {
        if (!strcmp(value_string(figure, "rows"), rows))
            return true;
    }
    return false;
}
