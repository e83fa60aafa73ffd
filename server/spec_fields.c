#include "server/spec_fields.h"

#include "core/ranks.h"

#include <stddef.h>

#define AT(member) offsetof(struct spec, member)
#define STEP(member) offsetof(struct preprocess_step, member)

const char *const spec_kinds[] = {[MODEL_OVR_ENCODER] = "ovr_encoder",
                                  [MODEL_MLP] = "mlp",
                                  [MODEL_AUTOENCODER] = "autoencoder",
                                  [MODEL_KMEANS] = "kmeans",
                                  [MODEL_ONLINE_KMEANS] = "online_kmeans",
                                  [MODEL_PCA] = "pca",
                                  [MODEL_RANDOM_PROJECTION] = "random_projection",
                                  [MODEL_IDENTITY] = "identity",
                                  NULL};
static const char *const generators[] = {"sphere", NULL};
const char *const spec_activations[] = {
    [ACT_RELU] = "relu",       [ACT_LEAKY_RELU] = "leaky_relu",
    [ACT_SIGMOID] = "sigmoid", [ACT_TANH] = "tanh",
    [ACT_LINEAR] = "linear",   [ACT_THRESHOLDED] = "thresholded",
    [ACT_TOP_K] = "top_k",     NULL};
static const char *const codes[] = {"triangle", "hard", NULL};
static const char *const corruptions[] = {[CORRUPTION_NONE] = "none",
                                          [CORRUPTION_MASKING] = "masking",
                                          [CORRUPTION_GAUSSIAN] = "gaussian",
                                          NULL};
static const char *const batchings[] = {
    [BATCHING_RANDOM] = "random", [BATCHING_SINGLE_CLASS] = "single_class", NULL};
static const char *const inits[] = {[INIT_NORMAL] = "normal",
                                    [INIT_GLOROT] = "glorot",
                                    [INIT_HE] = "he",
                                    [FROM_EXPERIMENT] = "experiment",
                                    NULL};
static const char *const seedings[] = {"samples", "kmeans++", "experiment", NULL};
static const char *const weight_epochs[] = {"best", "last", NULL};
static const char *const forms[] = {[OVR_COSINE] = "cosine", [OVR_RAW] = "raw", NULL};
const char *const spec_optimizers[] = {
    [OPT_ADAM] = "adam", [OPT_SGD] = "sgd", [OPT_ADAMW] = "adamw", [OPT_RMSPROP] = "rmsprop", NULL};
static const char *const schedules[] = {[SCHEDULE_CONSTANT] = "constant",
                                        [SCHEDULE_PLATEAU] = "plateau",
                                        [SCHEDULE_STEP] = "step",
                                        [SCHEDULE_COSINE] = "cosine",
                                        NULL};
static const char *const protocols[] = {
    [PROTOCOL_CLEAN] = "clean", [PROTOCOL_PUBLISHED] = "published", NULL};
static const char *const executors[] = {
    [EXECUTOR_LOCAL] = "local", [EXECUTOR_SLURM] = "slurm", [EXECUTOR_AUTO] = "auto", NULL};
static const char *const steps[] = {[PREPROCESS_STANDARDIZE] = "standardize",
                                    [PREPROCESS_PCA] = "pca",
                                    [PREPROCESS_SCALE] = "scale",
                                    [PREPROCESS_CONTRAST] = "contrast",
                                    [PREPROCESS_ZCA] = "zca",
                                    [PREPROCESS_FITTED] = "experiment",
                                    NULL};
static const char *const probes[] = {"logistic_regression", NULL};

#define SCHEDULE train.schedule
#define MOST 1e30

/* clang-format off */
const struct field spec_fields[] = {
    {"/name", T_TEXT, 0, AT(name), 0, NAME_MOST, "\"untitled\"", .help = "for people"},
    {"/tags", T_TAGS, 0, AT(tags), 0, TAGS_MOST, "[]", .help = "up to 16 words to filter by"},
    {"/priority", T_INT, 0, AT(priority), -100, 100, "0", .help = "higher runs earlier"},
    {"/private", T_FLAG, NULLABLE, AT(private), 0, 1, "null", .help = "seen by its owner and admins only; null: as the daemon's --visibility says"},
    {"/notes", T_TEXT, NOWHERE, 0, 0, 10000, "\"\"", .help = "free text"},

    {"/dataset", T_SECTION, REQUIRED | NOWHERE, .help = "a stored data set by name, or a generator"},
    {"/dataset/name", T_DATASET, REQUIRED, AT(dataset), .data = STORED, .help = "as uploaded"},
    {"/dataset/version", T_SECTION, NULLABLE | NOWHERE, .standard = "null", .data = STORED,
     .help = "SHA-256 of each split; the current one by default"},
    {"/dataset/version/train", T_SHA256, REQUIRED, AT(train_sha256), .data = STORED},
    {"/dataset/version/test", T_SHA256, REQUIRED, AT(test_sha256), .data = STORED},
    {"/dataset/train_limit", T_COUNT, NULLABLE, AT(train_limit), 1, 4e9, "null", .data = STORED, .help = "use the first samples only"},
    {"/dataset/test_limit", T_COUNT, NULLABLE, AT(test_limit), 1, 4e9, "null", .data = STORED, .help = "use the first samples only"},
    {"/dataset/generator", T_CHOICE, REQUIRED | NOWHERE, .choices = generators, .data = GENERATED},
    {"/dataset/samples", T_COUNT, 0, AT(sphere.samples), 1, 1e7, "5000", .data = GENERATED, .help = "training points"},
    {"/dataset/test_samples", T_COUNT, NULLABLE, AT(sphere.test_samples), 1, 1e7, "null", .data = GENERATED, .help = "test points; samples/5 by default"},
    {"/dataset/latitudes", T_COUNT, 0, AT(sphere.latitudes), 0, 1000, "4", .data = GENERATED, .help = "parallels; one more band than these"},
    {"/dataset/sectors", T_COUNT, 0, AT(sphere.sectors), 1, 1000, "5", .data = GENERATED, .help = "sectors between meridians"},
    {"/dataset/classes", T_COUNT, 0, AT(sphere.classes), 2, 1000, "10", .data = GENERATED, .help = "classes given to the cells at random"},
    {"/dataset/seed", T_COUNT, 0, AT(sphere.seed), 0, 9007199254740991, "1", .data = GENERATED},
    {"/dataset/only_classes", T_CLASSES, NULLABLE, AT(only_classes), 0, CLASSES_MAX - 1, "null", .help = "samples of these classes alone, of both splits, before the limits"},

    {"/preprocess", T_STEPS, 0, AT(train.data.preprocess), 0, PREPROCESS_MAX, "[]", .help = "in this order, fitted on the training samples"},
    {"/preprocess/*", T_VARIANT, 0, STEP(kind), .choices = steps},
    {"/preprocess/*/standardize", T_FLAG, NOWHERE, 0, 1, 1},
    {"/preprocess/*/pca", T_SECTION, NOWHERE},
    {"/preprocess/*/pca/components", T_COUNT, 0, STEP(components), 1, 65536, .instead_of = "variance"},
    {"/preprocess/*/pca/variance", T_REAL, ABOVE, STEP(variance), 0, 1, .instead_of = "components", .help = "share of the variance to keep"},
    {"/preprocess/*/pca/whiten", T_FLAG, 0, STEP(whiten), 0, 1, "false"},
    {"/preprocess/*/scale", T_SCALE, ABOVE, STEP(factor), 0, MOST, .help = "times a number, or to a range"},
    {"/preprocess/*/scale/min", T_REAL, 0, STEP(min), -1e6, 1e6, "0"},
    {"/preprocess/*/scale/max", T_REAL, 0, STEP(max), -1e6, 1e6, "1"},
    {"/preprocess/*/scale/per_feature", T_FLAG, 0, STEP(per_feature), 0, 1, "false", .help = "each feature fills the range"},
    {"/preprocess/*/contrast", T_SECTION, NOWHERE, .help = "each sample: (x - mean x)/sqrt(var x + epsilon)"},
    {"/preprocess/*/contrast/epsilon", T_REAL, 0, STEP(epsilon), 0, MOST, "10"},
    {"/preprocess/*/zca", T_SECTION, NOWHERE, .help = "whitened and turned back"},
    {"/preprocess/*/zca/epsilon", T_REAL, ABOVE, STEP(epsilon), 0, MOST, "0.1"},
    {"/preprocess/*/experiment", T_ID, 0, STEP(experiment), .help = "the fitted steps of this experiment; first step only"},

    {"/model", T_SECTION, REQUIRED | NOWHERE},
    {"/model/kind", T_CHOICE, REQUIRED, AT(train.kind), .choices = spec_kinds},
    {"/model/hidden", T_HIDDEN, REQUIRED, AT(train.hidden), 1, 65536, .kinds = HIDDEN, .help = "units of each hidden layer; k of kmeans, pca and random_projection"},
    {"/model/activation", T_CHOICE, 0, AT(train.f.kind), .standard = "\"relu\"", .choices = spec_activations, .kinds = GRADIENT | PROJECTION},
    {"/model/slope", T_REAL, 0, AT(slope), 0, 1, "0.01", .kinds = GRADIENT | PROJECTION, .activations = 1 << ACT_LEAKY_RELU, .help = "of leaky_relu below 0"},
    {"/model/threshold", T_REAL, 0, AT(threshold), 0, MOST, "1", .kinds = GRADIENT | PROJECTION, .activations = 1 << ACT_THRESHOLDED, .help = "of thresholded"},
    {"/model/top_k", T_COUNT, REQUIRED, AT(train.top_k), 1, 65536, .kinds = GRADIENT | PROJECTION, .activations = 1 << ACT_TOP_K, .help = "units that stay active"},
    {"/model/code", T_CHOICE, 0, AT(hard_code), .standard = "\"triangle\"", .choices = codes, .kinds = KMEANS, .help = "what the distances to the centroids become"},
    {"/model/tied", T_FLAG, 0, AT(train.tied), 0, 1, "false", .kinds = AUTOENCODER, .help = "the decoder's weights are the encoder's"},
    {"/model/corruption", T_VARIANT, NULLABLE, AT(train.corruption), .standard = "null", .choices = corruptions, .kinds = AUTOENCODER, .help = "denoising: what training steps do to their inputs"},
    {"/model/corruption/masking", T_REAL, ABOVE, AT(train.corruption_amount), 0, 0.999, .help = "share of the inputs set to 0"},
    {"/model/corruption/gaussian", T_REAL, ABOVE, AT(train.corruption_amount), 0, MOST, .help = "standard deviation"},
    {"/model/dropout", T_DROPOUT, 0, AT(train.dropout), 0, 0.999, "0", .kinds = MLP, .help = "share of each hidden layer's activations that a training step drops"},
    {"/model/freeze", T_COUNT, 0, AT(train.freeze), 0, LAYERS_MAX - 1, "0", .kinds = ENCODER | MLP, .help = "so many layers, from the first, keep their weights"},
    {"/model/init", T_VARIANT, 0, AT(train.init), .standard = "{\"normal\": 0.05}", .standard_other = "\"glorot\"", .others = MLP | AUTOENCODER, .choices = inits, .kinds = GRADIENT | PROJECTION},
    {"/model/init", T_VARIANT, 0, AT(seeding), .standard = "\"samples\"", .choices = seedings, .kinds = KMEANS, .help = "the first centroids"},
    {"/model/init/normal", T_REAL, ABOVE, AT(train.init_scale), 0, 1e6, .help = "standard deviation"},
    {"/model/init/experiment", T_ID, 0, AT(init_experiment), .help = "start from its weights, as far as their shapes agree"},
    {"/model/init/epoch", T_CHOICE, 0, AT(init_last), .standard = "\"best\"", .choices = weight_epochs, .beside = "experiment"},

    {"/loss", T_SECTION, NOWHERE, .standard = "{}", .kinds = GRADIENT},
    {"/loss/ovr", T_SECTION, NULLABLE | NOWHERE, .standard = "{}", .standard_other = "null", .others = MLP | AUTOENCODER},
    {"/loss/ovr/lambda", T_REAL, 0, AT(train.ovr.lambda), 0, MOST, "5e-5", .instead_of = "lambda_per_pair", .help = "weight of OVR for each batch"},
    {"/loss/ovr/lambda_per_pair", T_REAL, 0, AT(train.ovr.lambda), 0, MOST, .instead_of = "lambda", .help = "weight times n(n-1) pairs of a batch"},
    {"/loss/ovr/form", T_CHOICE, 0, AT(train.ovr.form), .standard = "\"cosine\"", .choices = forms},
    {"/loss/ovr/layers", T_LAYERS, NULLABLE, AT(train.ovr_layers), 0, LAYERS_MAX - 1, "null", .kinds = ENCODER | MLP, .help = "hidden layers, from 0, that OVR and the activity term are taken of; null: all"},
    {"/loss/activity", T_SECTION, NULLABLE, AT(train.activity), .standard = "{}", .standard_other = "null", .others = MLP | AUTOENCODER, .help = "|mean activation - target|"},
    {"/loss/activity/target", T_REAL, 0, AT(train.activity_target), 0, MOST, "0.5"},
    {"/loss/l1", T_REAL, 0, AT(train.l1), 0, MOST, "0", .kinds = AUTOENCODER, .help = "weight of the mean over samples of sum |h|"},
    {"/loss/l2", T_REAL, 0, AT(train.l2), 0, MOST, "0", .help = "weight of the sum of squared weights"},
    {"/loss/contractive", T_REAL, 0, AT(train.contractive), 0, MOST, "0", .kinds = AUTOENCODER, .help = "weight of the squared Jacobian of the code"},
    {"/loss/kl", T_SECTION, NULLABLE | NOWHERE, .standard = "null", .kinds = AUTOENCODER, .help = "KL sparsity of sigmoid units"},
    {"/loss/kl/target", T_REAL, ABOVE, AT(train.kl_target), 0, 0.999999, "0.05", .help = "mean activation of each unit"},
    {"/loss/kl/weight", T_REAL, 0, AT(train.kl), 0, MOST, "1"},

    {"/optimizer", T_SECTION, NOWHERE | LIBERAL, .standard = "{}", .kinds = GRADIENT},
    {"/optimizer/name", T_CHOICE, 0, AT(train.optimizer.name), .standard = "\"adam\"", .choices = spec_optimizers},
    {"/optimizer/learning_rate", T_REAL, ABOVE, AT(train.optimizer.learning_rate), 0, MOST, "0.001"},
    {"/optimizer/beta1", T_REAL, LIBERAL, AT(train.optimizer.beta1), 0, 0.999999, "0.9", .optimizers = ADAMS},
    {"/optimizer/beta2", T_REAL, LIBERAL, AT(train.optimizer.beta2), 0, 0.9999999, "0.999", .optimizers = ADAMS},
    {"/optimizer/epsilon", T_REAL, ABOVE | LIBERAL, AT(train.optimizer.epsilon), 0, 1, "1e-7", .optimizers = ADAMS | RMSPROP},
    {"/optimizer/momentum", T_REAL, LIBERAL, AT(train.optimizer.momentum), 0, 0.999999, "0", .optimizers = SGD | RMSPROP},
    {"/optimizer/nesterov", T_FLAG, LIBERAL, AT(train.optimizer.nesterov), 0, 1, "false", .optimizers = SGD},
    {"/optimizer/weight_decay", T_REAL, LIBERAL, AT(train.optimizer.weight_decay), 0, MOST, "0.01", .optimizers = ADAMW, .help = "decoupled; of all parameters"},
    {"/optimizer/rho", T_REAL, LIBERAL, AT(train.optimizer.rho), 0, 0.9999999, "0.9", .optimizers = RMSPROP, .help = "decay of the mean square"},

    {"/training", T_SECTION, NOWHERE, .standard = "{}"},
    {"/training/epochs", T_INT, LIBERAL, AT(train.epochs), 1, 100000, "35", .kinds = EPOCHS},
    {"/training/batch_size", T_COUNT, LIBERAL, AT(train.batch_size), 1, 65536, "128", .kinds = EPOCHS},
    {"/training/batching", T_CHOICE, LIBERAL, AT(train.batching), .standard = "\"random\"", .choices = batchings, .kinds = EPOCHS, .help = "single_class: all samples of a batch are of one class"},
    {"/training/only_classes", T_CLASSES, NULLABLE | LIBERAL, AT(train.only), 0, CLASSES_MAX - 1, "null", .kinds = EPOCHS, .help = "train on these classes alone; evaluation and probe see all"},
    {"/training/seed", T_COUNT, 0, AT(train.seed), 0, 9007199254740991, "1"},
    {"/training/schedule", T_VARIANT, LIBERAL, AT(SCHEDULE.name), .kinds = GRADIENT, .standard = "\"plateau\"", .choices = schedules},
    {"/training/schedule/plateau", T_SECTION, NOWHERE},
    {"/training/schedule/plateau/factor", T_REAL, ABOVE, AT(SCHEDULE.factor), 0, 1, "0.1"},
    {"/training/schedule/plateau/patience", T_INT, 0, AT(SCHEDULE.patience), 1, 100000, "5", .help = "epochs"},
    {"/training/schedule/plateau/min", T_REAL, 0, AT(SCHEDULE.min), 0, MOST, "1e-6", .help = "lowest learning rate"},
    {"/training/schedule/plateau/min_delta", T_REAL, 0, AT(SCHEDULE.min_delta), 0, MOST, "1e-4"},
    {"/training/schedule/step", T_SECTION, NOWHERE},
    {"/training/schedule/step/every", T_INT, 0, AT(SCHEDULE.every), 1, 100000, "10", .help = "epochs"},
    {"/training/schedule/step/factor", T_REAL, ABOVE, AT(SCHEDULE.factor), 0, 1, "0.1"},
    {"/training/schedule/cosine", T_SECTION, NOWHERE},
    {"/training/schedule/cosine/min", T_REAL, 0, AT(SCHEDULE.min), 0, MOST, "0", .help = "where it ends after the last epoch"},
    {"/training/schedule/cosine/warmup", T_INT, 0, AT(SCHEDULE.warmup), 0, 99999, "0", .help = "epochs of linear growth before it"},
    {"/training/early_stopping", T_SECTION, NULLABLE | NOWHERE | LIBERAL, .standard = "null", .kinds = EPOCHS},
    {"/training/early_stopping/patience", T_INT, 0, AT(train.patience), 1, 100000, "10", .help = "epochs"},
    {"/training/early_stopping/min_delta", T_REAL, 0, AT(train.patience_delta), 0, MOST, "1e-4"},
    {"/training/protocol", T_CHOICE, 0, AT(train.data.protocol), .standard = "\"clean\"", .choices = protocols},
    {"/training/validation", T_REAL, ABOVE, AT(train.data.validation), 0, 0.9, "0.1", .help = "share held out by the clean protocol"},
    {"/training/threads", T_AUTO, 0, AT(threads), 1, TEAM_MAX, "\"auto\"", .help = "changes speed, never results"},
    {"/training/executor", T_CHOICE, 0, AT(executor), .standard = "\"auto\"", .choices = executors, .help = "where it runs: on the daemon's machine, on the lab's Slurm cluster, or where the daemon thinks best"},
    {"/training/ranks", T_AUTO, 0, AT(ranks), 1, RANKS_MAX, "\"auto\"", .help = "processes of a cluster's nodes that share the layer; changes speed, never results"},
    {"/training/time_limit_seconds", T_REAL, NULLABLE | ABOVE, AT(time_limit_seconds), 0, 1e9, "null"},

    {"/probe", T_SECTION, NULLABLE, AT(train.probe), .standard = "{}", .standard_other = "null", .others = MLP, .help = "what the frozen code is worth"},
    {"/probe/kind", T_CHOICE, NOWHERE, .standard = "\"logistic_regression\"", .choices = probes},
    {"/probe/epochs", T_INT, 0, AT(train.probe_config.epochs), 1, 10000, "100"},
    {"/probe/batch_size", T_COUNT, 0, AT(train.probe_config.batch_size), 1, 65536, "32"},
    {"/probe/learning_rate", T_REAL, ABOVE, AT(train.probe_config.optimizer.learning_rate), 0, MOST, "5e-5"},
};
/* clang-format on */

const int n_spec_fields = sizeof spec_fields / sizeof *spec_fields;
