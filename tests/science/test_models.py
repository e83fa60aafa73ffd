"""Jobs of a real daemon against numpy (models.py): preparation, training, measures and probe. Speaks TAP."""
import os
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import numpy as np

    import models
    from daemon import Daemon
except ModuleNotFoundError as missing:
    print(f"1..1\nnot ok 1 # SKIP {missing} (Debian: python3-numpy)")
    sys.exit(0)

CLASSES, COMPONENTS, UNITS = 10, 12, 140  # more units than a shard of the daemon's holds


def near(actual, expected, tolerance, what):
    """Relative to the largest value expected."""
    off = np.abs(np.asarray(actual) - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert off <= tolerance, f"{what} is off by {off:.2e} of its largest value, more than {tolerance:g}"


def near_way(actual, expected, start, tolerance, what):
    """How far two ways from the same start end apart, by their length."""
    off = np.linalg.norm(actual - expected) / np.linalg.norm(expected - start)
    assert off <= tolerance, f"{what} is off by {off:.2e} of its way, more than {tolerance:g}"


def make_images(n, seed):
    """Pixels with a few strong axes of very different spread, and classes that can be told from them."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    axes, centres = fixed.normal(size=(20, 3072)), fixed.normal(size=(CLASSES, 20))
    labels = random.integers(CLASSES, size=n)
    codes = (centres[labels] + random.normal(size=(n, 20))) * 0.8 ** np.arange(20)
    pixels = 128 + 12 * codes @ axes + 2 * random.normal(size=(n, 3072))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), labels


class Case:
    """The daemon and its data set, raw and as numpy prepares it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.raw, self.labels = {}, {}
        for split, n, seed in (("train", 230, 1), ("test", 90, 2)):
            pixels, self.labels[split] = make_images(n, seed)
            daemon.upload("images", split, pixels, self.labels[split])
            self.raw[split] = pixels.astype(np.float64)
        self.mean, self.scale, self.centre, self.axes, self.x = self.prepare(np.arange(len(self.raw["train"])))

    def prepare(self, fitted):
        """Standardise and PCA, fitted on some of the training samples."""
        mean, scale = models.standardize(self.raw["train"][fitted])
        standard = {split: (x - mean) * scale for split, x in self.raw.items()}
        centre, axes, _ = models.pca(standard["train"][fitted], COMPONENTS)
        return mean, scale, centre, axes, {split: (x - centre) @ axes.T for split, x in standard.items()}

    def spec(self, kind, **sections):
        spec = {
            "dataset": {"name": "images"},
            "preprocess": ["standardize", {"pca": {"components": COMPONENTS}}],
            "model": {"kind": kind, "hidden": [UNITS], "init": {"normal": 0.05}},
            "training": {"epochs": 4, "batch_size": 32, "seed": 7, "protocol": "published", "schedule": "constant"},
            "probe": None,
        }
        for name, members in sections.items():
            spec[name] = {**(spec.get(name) or {}), **members}
        return spec

    def train_in_numpy(self, spec):
        """As the protocol has it; with the splits that were used."""
        training, x, labels = spec["training"], self.x, self.labels
        splits = {split: (x[split], labels[split]) for split in x}
        splits["watched"] = splits["test"]
        if training["protocol"] == "clean":
            kept, held = models.hold_out(training["seed"], len(labels["train"]), training["validation"])
            x = self.prepare(kept)[-1]
            splits = {"train": (x["train"][kept], labels["train"][kept]), "test": (x["test"], labels["test"]),
                      "watched": (x["train"][held], labels["train"][held])}
        return models.Net(spec, *splits["train"], *splits["watched"], CLASSES), splits


def test_preparation(case):
    done = case.daemon.run(case.spec("ovr_encoder", training={"epochs": 1}))
    near(case.daemon.tensor(done, "preprocess.0.mean"), case.mean, 1e-6, "mean")
    near(case.daemon.tensor(done, "preprocess.0.scale"), case.scale, 1e-6, "scale")
    near(case.daemon.tensor(done, "preprocess.1.components"), case.axes, 1e-4, "components")


def compare_terms(found, wanted, what):
    for name, value in wanted.items():
        if name == "accuracy":
            assert abs(found[name] - value) < 0.05, what  # two samples on an edge
        else:
            near(found[name], value, 5e-4, f"{name} of {what}")


def compare_series(series, expected, watched):
    assert len(series) == len(expected)
    for line, wanted in zip(series, expected):
        epoch = f"of epoch {line['epoch']}"
        near(line["learning_rate"], wanted["learning_rate"], 1e-9, f"learning rate {epoch}")
        compare_terms(line["train"], wanted["train"], f"train {epoch}")
        compare_terms(line[watched], wanted["watched"], f"{watched} {epoch}")
        for name, share in wanted["gradient"].items():
            assert abs(line["gradient"][name] - share) < 2e-3, f"share of {name} {epoch}"
        if "direction" in wanted:
            assert abs(line["direction"]["cosine"] - wanted["direction"]) < 2e-3, f"direction {epoch}"


def tensor_names(spec):
    """The daemon's names of the parameters, and whether they are kept transposed."""
    kind, layers = spec["model"]["kind"], len(spec["model"]["hidden"])
    names = {}
    for layer in range(layers):
        prefix = f"hidden.{layer}" if kind == "mlp" else f"encoder.{layer}" if layers > 1 else "encoder"
        names[f"w{layer}"], names[f"b{layer}"] = (prefix + ".weight", False), (prefix + ".bias", False)
    prefix = "output" if kind == "mlp" else "decoder"
    return {**names, "v": (prefix + ".weight", True), "c": (prefix + ".bias", False)}


def compare_training(case, spec):
    done = case.daemon.run(spec)
    expected, splits = case.train_in_numpy(done["spec"])
    clean = done["spec"]["training"]["protocol"] == "clean"
    compare_series(case.daemon.series(done), expected.series, "validation" if clean else "test")
    names = tensor_names(done["spec"])
    for name, wanted in expected.p.items():
        tensor, transposed = names[name]
        found = case.daemon.tensor(done, tensor, "last")
        found = found.T if transposed else found
        if name in expected.trained:
            near_way(found, wanted, expected.start[name], 3e-3, tensor)
        else:
            near(found, wanted, 1e-6, tensor)
    losses = [line["watched"]["loss"] for line in expected.series]
    assert done["result"]["best_epoch"] == 1 + losses.index(min(losses))
    expected.p = expected.best[1]
    compare_terms(done["result"]["test"], expected.evaluate(*splits["test"]), "the best epoch on test")


ENCODER = ["encoder.weight", "encoder.bias"]


def test_encoder_cosine(case):
    compare_training(case, case.spec("ovr_encoder", loss={"ovr": {"lambda": 1e-4}}))


def test_encoder_raw(case):
    loss = {"ovr": {"lambda": 1e-8, "form": "raw"}, "activity": {"target": 0.3}}
    compare_training(case, case.spec("ovr_encoder", loss=loss))


def test_encoder_per_pair_without_activity(case):
    loss = {"ovr": {"lambda_per_pair": 0.1}, "activity": None, "l2": 1e-3}
    compare_training(case, case.spec("ovr_encoder", loss=loss))


def compare_optimizer(case, schedule, **optimizer):
    spec = case.spec("mlp", loss={"ovr": {"lambda": 1e-4}}, optimizer=optimizer,
                     training={"epochs": 6, "schedule": schedule})
    spec["model"]["init"] = "glorot"
    compare_training(case, spec)


def test_adam_with_plateau(case):
    compare_optimizer(case, {"plateau": {"patience": 1, "factor": 0.5, "min_delta": 0.3}}, name="adam")


def test_adamw_with_cosine(case):
    compare_optimizer(case, {"cosine": {"min": 1e-4, "warmup": 2}}, name="adamw", weight_decay=0.5, epsilon=1e-3)


def test_rmsprop_with_steps(case):
    compare_optimizer(case, {"step": {"every": 2, "factor": 0.3}}, name="rmsprop", epsilon=1e-3)


def test_rmsprop_with_momentum(case):
    compare_optimizer(case, "constant", name="rmsprop", momentum=0.5, rho=0.99, epsilon=1e-2)


def test_nesterov(case):
    compare_optimizer(case, "constant", name="sgd", learning_rate=0.002, momentum=0.9, nesterov=True)


def compare_model(case, kind, loss=None, learning_rate=1e-3, epochs=3, **model):
    """With Adam's step kept smooth: where its root is near 0 rounding would decide on a weight's direction."""
    spec = case.spec(kind, model={"init": "glorot", **model}, loss=loss or {}, training={"epochs": epochs},
                     optimizer={"learning_rate": learning_rate, "epsilon": 1e-4})
    compare_training(case, spec)


SMALL = {"hidden": [30]}


def test_deep_mlp(case):
    loss = {"ovr": {"lambda": 1e-4, "layers": [1]}, "activity": {"target": 0.4}, "l2": 1e-4}
    compare_model(case, "mlp", loss, hidden=[20, 140, 15])


def test_deep_mlp_ovr_everywhere(case):
    compare_model(case, "mlp", {"ovr": {"lambda": 1e-4}}, hidden=[20, 15], activation="leaky_relu", slope=0.1)


def test_dropout(case):
    compare_model(case, "mlp", {"ovr": {"lambda": 1e-4}}, hidden=[140, 15], dropout=[0.5, 0.2])


def test_dropout_of_all(case):
    compare_model(case, "mlp", hidden=[150], dropout=0.5, activation="tanh")


def test_frozen_layer(case):
    compare_model(case, "mlp", {"l2": 1e-3}, hidden=[20, 15], freeze=1)


def test_stacked_encoder(case):
    compare_model(case, "ovr_encoder", {"ovr": {"lambda": 1e-4}}, hidden=[140, 20])


def test_frozen_encoder(case):
    compare_model(case, "ovr_encoder", {"ovr": {"lambda": 1e-4}}, hidden=[30, 20], freeze=1)


def test_autoencoder(case):
    compare_model(case, "autoencoder", hidden=[140])


def test_autoencoder_tied_ovr(case):
    compare_model(case, "autoencoder", {"ovr": {"lambda": 1e-4}, "activity": {"target": 0.3}}, hidden=[140], tied=True)


def test_autoencoder_masking(case):
    compare_model(case, "autoencoder", corruption={"masking": 0.3}, **SMALL)


def test_autoencoder_gaussian(case):
    compare_model(case, "autoencoder", corruption={"gaussian": 0.5}, tied=True, **SMALL)


def test_autoencoder_kl(case):
    loss = {"kl": {"target": 0.1, "weight": 0.01}, "l2": 1e-4}
    compare_model(case, "autoencoder", loss, activation="sigmoid", **SMALL)


def test_autoencoder_contractive(case):
    for activation in ("sigmoid", "tanh", "relu", "leaky_relu"):
        compare_model(case, "autoencoder", {"contractive": 0.01}, activation=activation, **SMALL)


def test_autoencoder_contractive_tied(case):
    compare_model(case, "autoencoder", {"contractive": 0.01}, activation="sigmoid", tied=True, **SMALL)


def test_autoencoder_l1(case):
    compare_model(case, "autoencoder", {"l1": 0.01}, activation="linear", **SMALL)


def test_autoencoder_top_k(case):
    compare_model(case, "autoencoder", hidden=[140], top_k=10)


def test_autoencoder_thresholded(case):
    compare_model(case, "autoencoder", threshold=0.5, **SMALL)


def compare_way(case, kind="mlp", init="glorot", **training):
    """The way through the data."""
    spec = case.spec(kind, model={"init": init}, loss={"ovr": {"lambda": 1e-4}}, optimizer={"epsilon": 1e-4},
                     training=training)
    compare_training(case, spec)


def test_clean_protocol(case):
    compare_way(case, protocol="clean", validation=0.2)


def test_clean_protocol_of_an_encoder(case):
    compare_way(case, "ovr_encoder", protocol="clean")


def test_single_class_batches(case):
    compare_way(case, batching="single_class", batch_size=10)


def test_only_some_classes(case):
    compare_way(case, only_classes=[2, 3, 7])


def codes(case, done):
    w, b = (case.daemon.tensor(done, name) for name in ENCODER)
    return {split: np.maximum(x @ w.T + b, 0) for split, x in case.x.items()}


def test_measures(case):
    done = case.daemon.run(case.spec("ovr_encoder", loss={"ovr": {"lambda": 1e-3}}, training={"epochs": 8}))
    h = codes(case, done)["test"]
    histogram = case.daemon.get(f"/v1/experiments/{done['id']}/histogram")
    found, expected = done["result"]["sparsity"], models.sparsity(h)
    for name, value in expected.items():
        near(found[name], value, 1e-3, name)
    edges = np.array(histogram["edges"], dtype=np.float64)
    counts, _ = np.histogram(h[h > 0], bins=np.append(edges[:-1], np.inf))
    assert np.abs(counts - histogram["counts"]).sum() <= 2e-3 * h.size, "the histogram's counts differ"
    assert abs(histogram["zero_count"] - (h == 0).sum()) <= 1e-3 * h.size
    assert histogram["total"] == h.size


PROBE = {"epochs": 8, "batch_size": 16, "learning_rate": 2e-3}


def compare_probe(case, done, h):
    w, b, loss, accuracy = models.probe(h["train"], case.labels["train"], h["test"], case.labels["test"], CLASSES,
                                        PROBE, 7)
    near_way(case.daemon.tensor(done, "probe.weight"), w, 0, 2e-3, "the probe's weights")
    near_way(case.daemon.tensor(done, "probe.bias"), b, 0, 2e-3, "the probe's bias")
    near(done["result"]["probe"]["loss"], loss, 1e-4, "loss")
    assert abs(done["result"]["accuracy"] - accuracy) < 0.025


def test_probe(case):
    done = case.daemon.run(case.spec("ovr_encoder", training={"epochs": 1}, probe=PROBE))
    compare_probe(case, done, codes(case, done))


def compare_sparsity(done, h):
    for name, value in models.sparsity(h).items():
        assert abs(done["result"]["sparsity"][name] - value) <= 2e-3 * max(1, abs(value)), name


def bare_spec(case, kind, **model):
    """Of a kind that has settings of its own instead of an encoder's."""
    return {**case.spec(kind, probe=PROBE), "model": {"kind": kind, **model}}


def compare_kmeans(case, kind, epochs, **model):
    spec = bare_spec(case, kind, hidden=[20], **model)
    spec["training"] = {**spec["training"], "epochs": epochs}
    done = case.daemon.run(spec)
    expected = models.KMeans(done["spec"], case.x["train"], case.x["test"])
    series = case.daemon.series(done)
    assert len(series) == len(expected.series) == done["result"]["epochs"]
    for line, wanted in zip(series, expected.series):
        for split in ("train", "test"):
            near(line[split]["distortion"], wanted[split], 1e-5, f"{split} distortion of epoch {line['epoch']}")
            assert line[split]["loss"] == line[split]["distortion"]
    near(case.daemon.tensor(done, "centroids", "last"), expected.centroids, 1e-5, "centroids")
    assert (case.daemon.tensor(done, "counts", "last") == expected.counts).all(), "counts"
    code = {"triangle": models.triangle, "hard": models.hard}[done["spec"]["model"]["code"]]
    h = {split: code(x, case.daemon.tensor(done, "centroids")) for split, x in case.x.items()}
    compare_sparsity(done, h["test"])
    compare_probe(case, done, h)
    return done


def test_kmeans(case):
    done = compare_kmeans(case, "kmeans", 60)
    assert done["result"]["epochs"] < 60, "it ends where nothing changes"


def test_kmeans_plus_plus_hard(case):
    compare_kmeans(case, "kmeans", 3, init="kmeans++", code="hard")


def test_online_kmeans(case):
    compare_kmeans(case, "online_kmeans", 3)


def test_pca(case):
    """On raw pixels, whose mean is far from 0."""
    done = case.daemon.run({**bare_spec(case, "pca", hidden=[5]), "preprocess": []})
    w, b = (case.daemon.tensor(done, name) for name in ENCODER)
    mean, axes, _ = models.pca(case.raw["train"], 5)
    near(w, axes, 1e-4, "axes")
    near(b, -axes @ mean, 1e-4, "biases")
    compare_sparsity(done, (case.raw["test"] - mean) @ axes.T)


def test_pca_of_prepared(case):
    done = case.daemon.run(bare_spec(case, "pca", hidden=[5]))
    mean, axes, _ = models.pca(case.x["train"], 5)
    h = {split: (x - mean) @ axes.T for split, x in case.x.items()}
    compare_sparsity(done, h["test"])
    compare_probe(case, done, h)


def test_random_projection(case):
    done = case.daemon.run(case.spec("random_projection", probe=PROBE))
    w = np.array([models.normals(7, models.INIT, 0, unit, COMPONENTS) for unit in range(UNITS)]) * 0.05
    near(case.daemon.tensor(done, "encoder.weight"), w, 1e-6, "weights")
    h = {split: np.maximum(x @ w.T, 0) for split, x in case.x.items()}
    compare_sparsity(done, h["test"])
    compare_probe(case, done, h)


def test_identity(case):
    done = case.daemon.run(bare_spec(case, "identity"))
    compare_sparsity(done, case.x["test"])
    compare_probe(case, done, case.x)


def main():
    tests = [(name[5:], test) for name, test in globals().items() if name.startswith("test_")]
    print(f"1..{len(tests)}")
    failed = 0
    with Daemon() as daemon:
        case = Case(daemon)
        for number, (name, test) in enumerate(tests, 1):
            try:
                test(case)
                print(f"ok {number} - {name}", flush=True)
            except Exception:  # whatever went wrong, the others are run as well
                failed += 1
                print(f"not ok {number} - {name}")
                print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()), end="", flush=True)
    sys.exit(failed > 0)


main()
