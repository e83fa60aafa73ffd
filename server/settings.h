/* Settings: one table gives each its flag, environment variable, default, range, unit and help.
 *
 * A flag wins over the environment, the environment over the default. `--data-dir` is OVRD_DATA_DIR
 * in the environment, and so on.
 */
#ifndef SERVER_SETTINGS_H
#define SERVER_SETTINGS_H

#include "core/err.h"

#include <stdint.h>
#include <stdio.h>

struct settings {
    const char *data_dir, *listen, *isa, *blas_kernel, *log_level;
    const char *visibility, *admin_token_file, *host_names, *tls_cert, *tls_key;
    int64_t workers, memory_bytes, cache_bytes, model_cache_bytes, http_threads, max_connections,
        idle_timeout_s, max_body_bytes, max_upload_bytes, max_crashes, checkpoint_s, max_watchers,
        keep_backups, half_life_s, retention_days, retention_failed_days;
    int64_t user_running, user_queued, user_storage_bytes, requests_per_second, failures_per_minute,
        connections_per_address, least_body_rate;
    /* The cluster: docs/slurm.md. */
    const char *slurm, *slurm_directory, *slurm_options, *slurm_worker, *slurm_shared_data,
        *worker_url, *worker_ca;
    int64_t slurm_jobs, slurm_cores, slurm_node_bytes, slurm_above_bytes, slurm_above_hours,
        slurm_max_minutes, slurm_poll_s, slurm_lease_s;
};

enum settings_action { SETTINGS_RUN, SETTINGS_HELP, SETTINGS_MANUAL, SETTINGS_VERSION };

/* Texts point into argv, the environment or the table. */
int settings_read(struct settings *settings, enum settings_action *action, int argc, char **argv,
                  struct ovr_err *err);
void settings_help(FILE *out);
void settings_manual(FILE *out); /* ovrd(8), for man */

#endif
