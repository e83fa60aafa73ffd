/* The cache of prepared data: made once, shared, kept on disk within a limit, and made again when
 * it is damaged. */
#include "server/cache.h"
#include "server/digest.h"
#include "tests/server/check.h"

#include <fcntl.h>

enum { RECORDS = 30, BYTES = RECORDS * CIFAR10_RECORD, BLOCK = 1 << 20 };

struct shop {
    struct catalog catalog;
    struct cache cache;
    struct team *team;
    struct spec spec; /* of a stored data set */
    const char *dir;
};

static void open_cache(struct shop *shop, uint64_t limit) {
    struct ovr_err err = {0};
    assert_ok(
        cache_init(&shop->cache, shop->dir, &shop->catalog, kernels_get(ISA_BASELINE), limit, &err),
        &err);
}

/* One file serves as both splits. */
static void open_shop(struct shop *shop, void **state, uint64_t limit) {
    struct place *place = *state;
    struct ovr_err err = {0};
    char *bytes = calloc(1, BYTES), path[700];
    assert_non_null(bytes);
    *shop = (struct shop){.team = new_team(1), .dir = place->dir};
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (char)(i % CIFAR10_RECORD ? i * 37 % 251 : i % 10);
    assert_ok(catalog_init(&shop->catalog, place->dir, place->store, &err), &err);
    digest_of(bytes, BYTES, shop->spec.train_sha256);
    digest_of(bytes, BYTES, shop->spec.test_sha256);
    snprintf(path, sizeof path, "%s/%s", shop->catalog.directory, shop->spec.train_sha256);
    write_whole(path, bytes, BYTES);
    free(bytes);
    shop->spec.train.data =
        (struct prepare_config){.protocol = PROTOCOL_CLEAN, .validation = 0.2, .n_preprocess = 1};
    open_cache(shop, limit);
}

static void close_shop(struct shop *shop) {
    cache_release(&shop->cache);
    team_free(shop->team);
}

static const struct prepared *get(struct shop *shop) {
    const struct prepared *data;
    const _Atomic int stop = 0;
    struct ovr_err err = {0};
    assert_ok(cache_get(&shop->cache, &shop->spec, shop->team, &stop, &data, &err), &err);
    return data;
}

static void forget_all(struct shop *shop, uint64_t limit) {
    cache_release(&shop->cache);
    open_cache(shop, limit);
}

/* The file of the only block. */
static void only_file(const struct shop *shop, char path[800]) {
    DIR *dir = opendir(shop->cache.directory);
    assert_non_null(dir);
    *path = '\0';
    for (struct dirent *entry; (entry = readdir(dir));)
        if (*entry->d_name != '.')
            snprintf(path, 800, "%s/%.80s", shop->cache.directory, entry->d_name);
    closedir(dir);
    assert_true(*path);
}

static ino_t inode_of_only_file(const struct shop *shop) {
    char path[800];
    struct stat stat_;
    only_file(shop, path);
    assert_int_equal(stat(path, &stat_), 0);
    return stat_.st_ino;
}

static void made_once_and_shared(void **state) {
    struct shop shop;
    open_shop(&shop, state, BLOCK);
    const struct prepared *a = get(&shop), *b = get(&shop);
    assert_ptr_equal(a, b);
    assert_int_equal(a->in_file, 1);
    assert_int_equal(a->train.n, 24);
    cache_put(&shop.cache, a);
    assert_int_equal(b->watched.n, 6); /* still there for the other user */
    cache_put(&shop.cache, b);
    cache_put(&shop.cache, NULL);
    close_shop(&shop);
}

static void kept_over_a_restart(void **state) {
    struct shop shop;
    open_shop(&shop, state, BLOCK);
    const struct prepared *data = get(&shop);
    real first = data->train.x[7];
    cache_put(&shop.cache, data);
    ino_t inode = inode_of_only_file(&shop);
    forget_all(&shop, BLOCK);
    data = get(&shop);
    assert_int_equal(inode_of_only_file(&shop), inode);
    assert_true(data->train.x[7] == first);
    cache_put(&shop.cache, data);
    close_shop(&shop);
}

static void damage_is_mended(void **state) {
    struct shop shop;
    char path[800];
    open_shop(&shop, state, BLOCK);
    const struct prepared *data = get(&shop);
    real right = data->train.x[0];
    size_t at = (size_t)((const char *)data->train.x - (const char *)data->block);
    cache_put(&shop.cache, data);
    for (int i = 0; i < 2; i++) {
        only_file(&shop, path);
        forget_all(&shop, BLOCK);
        assert_int_equal(chmod(path, 0644), 0);
        if (i)
            assert_int_equal(truncate(path, 50), 0);
        else {
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            assert_int_equal(pwrite(fd, "\x7f", 1, (off_t)at + 1), 1);
            close(fd);
        }
        data = get(&shop);
        assert_true(data->train.x[0] == right);
        cache_put(&shop.cache, data);
    }
    assert_int_equal(count_entries(shop.dir, "/cache"), 1);
    close_shop(&shop);
}

/* Whatever the bytes depend on makes another key; what they do not depend on doesn't. */
static void keys(void **state) {
    struct shop shop;
    open_shop(&shop, state, 64 * BLOCK);
    const struct prepared *data[8];
    struct spec first = shop.spec;
    data[0] = get(&shop);
    shop.spec.train.seed = 2; /* another draw of what is held out */
    data[1] = get(&shop);
    shop.spec.train.data.protocol = PROTOCOL_PUBLISHED;
    data[2] = get(&shop);
    shop.spec.train.seed = 3; /* nothing is drawn */
    shop.spec.train.hidden[0] = 77;
    data[3] = get(&shop);
    assert_ptr_equal(data[2], data[3]);
    shop.spec = first;
    shop.spec.train_limit = 20;
    data[4] = get(&shop);
    shop.spec = first;
    shop.spec.train.data.n_preprocess = 0;
    data[5] = get(&shop);
    shop.spec = first;
    shop.spec.train.data.validation = 0.3;
    data[6] = get(&shop);
    shop.spec = first;
    struct kernels other = *shop.cache.kernels;
    other.isa = ISA_AVX2;
    shop.cache.kernels = &other;
    data[7] = get(&shop);
    assert_int_equal(count_entries(shop.dir, "/cache"), 7);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < i; j++)
            assert_true(data[i] != data[j] || (i == 3 && j == 2));
    for (int i = 0; i < 8; i++)
        cache_put(&shop.cache, data[i]);
    close_shop(&shop);
}

static void get_and_put(struct shop *shop, uint64_t seed) {
    shop->spec.train.seed = seed;
    cache_put(&shop->cache, get(shop));
    sleep_ms(20); /* coarse file times */
}

/* Files of the cache that are gone but still take room on the disk. */
static int count_removed_but_mapped(void) {
    char line[1024];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "/cache/") && strstr(line, "(deleted)");
    fclose(maps);
    return n;
}

/* Room for two blocks of three: the one that was not used for longest goes, whether its last use
 * came from the disk or from memory. */
static void the_limit_holds(void **state) {
    struct shop shop;
    open_shop(&shop, state, BLOCK);
    struct stat stat_;
    char oldest[800];
    uint64_t room = 2 * (prepared_bytes(&shop.spec.train.data, RECORDS, RECORDS, 3072, 0) + 65);
    shop.cache.limit_bytes = room;
    get_and_put(&shop, 0);
    only_file(&shop, oldest);
    get_and_put(&shop, 1);
    get_and_put(&shop, 0); /* used again, from memory */
    get_and_put(&shop, 2);
    assert_int_equal(count_entries(shop.dir, "/cache"), 2);
    assert_int_equal(stat(oldest, &stat_), 0);
    forget_all(&shop, room);
    get_and_put(&shop, 2);
    get_and_put(&shop, 0); /* from the disk */
    get_and_put(&shop, 3);
    assert_int_equal(count_entries(shop.dir, "/cache"), 2);
    assert_int_equal(stat(oldest, &stat_), 0);
    get_and_put(&shop, 4);
    get_and_put(&shop, 5);
    assert_int_equal(stat(oldest, &stat_), -1);
    assert_int_equal(count_removed_but_mapped(), 0);
    close_shop(&shop);
}

static void larger_than_the_limit(void **state) {
    struct shop shop;
    open_shop(&shop, state, 1000);
    const struct prepared *data = get(&shop);
    assert_int_equal(data->in_file, 0);
    assert_int_equal(count_entries(shop.dir, "/cache"), 0);
    cache_put(&shop.cache, data);
    close_shop(&shop);
}

static void leftovers_go(void **state) {
    struct shop shop;
    char path[800];
    open_shop(&shop, state, BLOCK);
    snprintf(path, sizeof path, "%s/build-abcdef", shop.cache.directory);
    write_whole(path, "half", 4);
    forget_all(&shop, BLOCK);
    assert_int_equal(count_entries(shop.dir, "/cache"), 0);
    close_shop(&shop);
}

static void generated_data_stay_in_memory(void **state) {
    struct shop shop;
    open_shop(&shop, state, BLOCK);
    shop.spec.generated = 1;
    shop.spec.sphere = (struct sphere_config){20, 5, 2, 3, 4, 7};
    const struct prepared *a = get(&shop), *b = get(&shop);
    assert_ptr_equal(a, b);
    assert_int_equal(a->in_file, 0);
    cache_put(&shop.cache, a);
    assert_non_null(shop.cache.entries);
    cache_put(&shop.cache, b);
    assert_null(shop.cache.entries); /* nobody uses it: gone */
    assert_int_equal(count_entries(shop.dir, "/cache"), 0);
    close_shop(&shop);
}

/* Half of the members ask at the same time, each as a job of its own. */
struct asking {
    struct shop *shop;
    const struct prepared *data[4];
    _Atomic int stop;
};

static void ask(struct member *member, void *arg) {
    struct asking *asking = arg;
    struct ovr_err err = {0};
    struct team *team = new_team(1);
    if (cache_get(&asking->shop->cache, &asking->shop->spec, team, &asking->stop,
                  &asking->data[member->rank], &err))
        asking->data[member->rank] = NULL;
    team_free(team);
}

static void many_at_once_make_it_once(void **state) {
    struct shop shop;
    open_shop(&shop, state, BLOCK);
    struct team *jobs = new_team(4);
    struct asking asking = {.shop = &shop};
    team_run(jobs, ask, &asking);
    for (int i = 0; i < 4; i++) {
        assert_non_null(asking.data[i]);
        assert_ptr_equal(asking.data[i], asking.data[0]);
    }
    assert_int_equal(count_entries(shop.dir, "/cache"), 1);
    for (int i = 0; i < 4; i++)
        cache_put(&shop.cache, asking.data[i]);
    team_free(jobs);
    close_shop(&shop);
}

static void failure_leaves_nothing(void **state) {
    struct shop shop;
    const struct prepared *data;
    const _Atomic int go = 0, stop = 1;
    struct ovr_err err = {0};
    open_shop(&shop, state, BLOCK);
    assert_failed(cache_get(&shop.cache, &shop.spec, shop.team, &stop, &data, &err), OVR_STOPPED,
                  &err, "stopped");
    assert_null(data);
    assert_null(shop.cache.entries);
    assert_int_equal(count_entries(shop.dir, "/cache"), 0);
    err = (struct ovr_err){0};
    shop.spec.test_sha256[0] ^= 1;
    assert_failed(cache_get(&shop.cache, &shop.spec, shop.team, &go, &data, &err), OVR_IO, &err,
                  "upload it again");
    shop.spec.test_sha256[0] ^= 1;
    cache_put(&shop.cache, get(&shop)); /* the next one succeeds */
    close_shop(&shop);
}

/* A directory that takes no files: the job has its data all the same. */
static void goes_without_a_disk(void **state) {
    struct shop shop;
    open_shop(&shop, state, BLOCK);
    assert_int_equal(rmdir(shop.cache.directory), 0);
    const struct prepared *data = get(&shop);
    assert_int_equal(data->in_file, 0);
    cache_put(&shop.cache, data);
    close_shop(&shop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(made_once_and_shared),
        with_store(kept_over_a_restart),
        with_store(damage_is_mended),
        with_store(keys),
        with_store(the_limit_holds),
        with_store(larger_than_the_limit),
        with_store(leftovers_go),
        with_store(generated_data_stay_in_memory),
        with_store(many_at_once_make_it_once),
        with_store(failure_leaves_nothing),
        with_store(goes_without_a_disk),
    };
    return cmocka_run_group_tests_name("server/cache", tests, start_blas, NULL);
}
