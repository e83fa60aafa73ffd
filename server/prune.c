#include "server/prune.h"

#include "server/backup.h"
#include "server/checkpoint.h"
#include "server/files.h"
#include "server/weights.h"

#include <stdio.h>
#include <string.h>

static int64_t bytes_of(const struct prune_site *site, const char *id) {
    char path[1024];
    snprintf(path, sizeof path, "%.500s/experiments/%s", site->data_dir, id);
    return files_tree_bytes(path);
}

/* Without what the data sets need it for, which is looked at once for many. */
static int delete_one(const struct prune_site *site, const char *id, int64_t *bytes,
                      struct ovr_err *err) {
    int64_t size = bytes_of(site, id);
    int rc = store_delete_experiment(site->store, id, err);
    if (rc)
        return rc;
    if (backup_hold_off()) {
        weights_remove(site->data_dir, id);
        checkpoint_remove(site->data_dir, id);
        backup_let_go();
    }
    *bytes = size;
    return 0;
}

int prune_one(const struct prune_site *site, const char *id, int64_t *bytes, struct ovr_err *err) {
    int rc = delete_one(site, id, bytes, err);
    if (!rc)
        catalog_sweep(site->catalog);
    return rc;
}

/* Tags stand between newlines. */
static int is_to_stay(const struct experiment *e, const struct prune_rules *rules) {
    int by_its_tag = rules->tag && strcmp(rules->tag, KEEP_TAG) == 0;
    return !by_its_tag && strstr(e->tags, "\n" KEEP_TAG "\n");
}

struct page {
    const struct prune_site *site;
    const struct prune_rules *rules;
    int (*give)(void *context, const struct pruned *pruned);
    void *context;
};

static int prune(const struct page *page, const struct experiment *e, struct ovr_err *err) {
    struct pruned pruned = {.experiment = e};
    struct ovr_err why = {0};
    int rc;
    if (page->rules->dry) {
        rc = store_may_delete(page->site->store, e->id, &why);
        pruned.bytes = rc ? 0 : bytes_of(page->site, e->id);
    } else {
        rc = delete_one(page->site, e->id, &pruned.bytes, &why);
    }
    if (rc == OVR_NOT_FOUND) /* somebody else was faster */
        return 0;
    if (rc == OVR_CONFLICT || rc == OVR_FORBIDDEN)
        pruned.kept = why.text;
    else if (rc)
        return ovr_fail(err, rc, why.field, "%s", why.text);
    rc = page->give(page->context, &pruned);
    return rc == OVR_NOMEM ? ovr_nomem(err, "the list of what was deleted") : rc;
}

int prune_page(const struct prune_site *site, const struct prune_rules *rules, int most,
               struct prune_place *place, int *more,
               int (*give)(void *context, const struct pruned *pruned), void *context,
               struct ovr_err *err) {
    const struct page page = {site, rules, give, context};
    const struct experiment_filter filter = {.order = ORDER_FINISHED,
                                             .ascending = 1,
                                             .state = rules->state,
                                             .tag = rules->tag,
                                             .owner = rules->owner,
                                             .key = (double)place->ended,
                                             .before = place->seq,
                                             .limit = most};
    struct experiment *list;
    size_t n;
    int rc = store_list_experiments(site->store, &filter, &list, &n, err);
    if (rc)
        return rc;
    *more = n == (size_t)most;
    for (size_t i = 0; i < n && !rc; i++) {
        int over = list[i].finished_at >= rules->ended_before;
        if (over || (rules->stop && *rules->stop)) {
            *more = !over;
            break;
        }
        *place = (struct prune_place){list[i].finished_at, list[i].seq};
        if (!is_to_stay(&list[i], rules))
            rc = prune(&page, &list[i], err);
    }
    experiment_list_free(list, n);
    if (!rules->dry)
        catalog_sweep(site->catalog);
    return rc;
}
