"""What the daemon computes, once more: plain numpy in float64, written from the formulas and sharing
no code with it, gradients by autodiff.py. Speed is of no account here: OVR is taken over all pairs.
"""
import numpy as np

from autodiff import Node, constant, exp, gradients, log, magnitude

# --- random numbers: Philox4x32-10 (Salmon et al. 2011), streams by (seed, purpose, epoch, index) ---

INIT, SHUFFLE, SPLIT, HEAD_INIT, PROBE_SHUFFLE, CORRUPTION, CLASS_ORDER, CENTROIDS = 1, 2, 3, 7, 8, 9, 10, 11
DROPOUT, LAYER_INIT = 64, 96  # + the layer


def philox(seed, purpose, epoch, index, n):
    """The first n 32-bit numbers of a stream."""
    blocks = (n + 3) // 4
    c = [np.arange(blocks, dtype=np.uint64)] + [np.full(blocks, v, dtype=np.uint64) for v in (index, epoch, purpose)]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high, low = np.uint64(32), np.uint64(0xFFFFFFFF)
        c = [(p1 >> high) ^ c[1] ^ np.uint64(k[0]), p1 & low, (p0 >> high) ^ c[3] ^ np.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, axis=1).ravel()[:n]


def uniforms(seed, purpose, epoch, index, n):
    bits = philox(seed, purpose, epoch, index, 2 * n).reshape(n, 2) >> np.uint64(6)
    return ((bits[:, 0] * 2.0**26 + bits[:, 1]) + 0.5) / 2**52


def normals(seed, purpose, epoch, index, n):
    u = uniforms(seed, purpose, epoch, index, 2 * n).reshape(n, 2)
    return np.sqrt(-2 * np.log(u[:, 0])) * np.cos(2 * np.pi * u[:, 1])


def below(numbers, n):
    """0 … n − 1 without bias (Lemire 2019), from an iterator over 32-bit numbers."""
    product = next(numbers) * n
    while product % 2**32 < 2**32 % n:
        product = next(numbers) * n
    return product >> 32


def permutation(seed, purpose, epoch, n):
    numbers = iter(philox(seed, purpose, epoch, 0, 4 * n).tolist())
    order = [0] * n
    for i in range(n):
        j = below(numbers, i + 1)
        order[i] = order[j]
        order[j] = i
    return np.array(order)


# --- preparation ---

def hold_out(seed, n, share):
    """Numbers of the samples to train on, and of those held out."""
    order, left = permutation(seed, SPLIT, 0, n), n - max(1, round(share * n))
    return np.sort(order[:left]), np.sort(order[left:])


def standardize(train):
    sigma = train.std(axis=0)
    return train.mean(axis=0), 1 / np.where(sigma > 0, sigma, 1)


def pca(train, components):
    """Mean, axes in rows (falling variance, largest coefficient positive) and variances."""
    values, vectors = np.linalg.eigh(np.cov(train, rowvar=False))
    axes = vectors[:, ::-1][:, :components].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return train.mean(axis=0), axes * np.sign(largest), values[::-1][:components]


# --- terms of J, as Nodes ---

def ovr(h, form):
    """Σ_i Σ_{j≠i} h_i·h_j, cosine: of the rows divided by their norms; a row of zeros has no direction."""
    if form == "cosine":
        there = ((h.value**2).sum(axis=1, keepdims=True) > 1e-24) * 1.0
        h = h * there / ((h * h).sum(axis=1) + (1 - there)) ** 0.5
    return (h @ h.T * (1 - np.eye(len(h.value)))).sum()


def cross_entropy(logits, labels):
    shifted = logits - logits.value.max(axis=1, keepdims=True)
    right = np.eye(shifted.value.shape[1])[labels]
    return (log(exp(shifted).sum(axis=1)) - (shifted * right).sum(axis=1)).mean()


def kl(h, target):
    share = h.mean(axis=0)
    return (target * log(target / share) + (1 - target) * log((1 - target) / (1 - share))).sum()


def activate(a, model):
    """f(a) and f'(a)."""
    kind, ones = model["activation"], Node(np.ones(a.value.shape))
    if kind == "sigmoid":
        h = 1 / (1 + exp(-a))
        return h, h * (1 - h)
    if kind == "tanh":
        h = 2 / (1 + exp(-2 * a)) - 1
        return h, 1 - h * h
    if kind == "linear":
        return a, ones
    if kind == "top_k":
        kept = np.argsort(-a.value, axis=1, kind="stable")[:, : model["top_k"]]
        slope = np.zeros(a.value.shape)
        np.put_along_axis(slope, kept, 1, axis=1)
    else:
        limit = model["threshold"] if kind == "thresholded" else 0
        slope = np.where(a.value > limit, 1, model["slope"] if kind == "leaky_relu" else 0)
    return a * slope, Node(slope)


# --- optimisers and schedules ---

class Optimizer:
    def __init__(self, settings, parameters):
        self.settings, self.t = settings, 0
        self.moments = [[np.zeros_like(p), np.zeros_like(p)] for p in parameters]

    def step(self, parameters, gradients, rate):
        self.t += 1
        for p, g, moments in zip(parameters, gradients, self.moments):
            getattr(self, self.settings["name"])(p, g, moments, rate)

    def adam(self, p, g, moments, rate):
        b1, b2, epsilon = (self.settings[name] for name in ("beta1", "beta2", "epsilon"))
        moments[0] = b1 * moments[0] + (1 - b1) * g
        moments[1] = b2 * moments[1] + (1 - b2) * g * g
        m, v = moments[0] / (1 - b1**self.t), moments[1] / (1 - b2**self.t)
        p -= rate * m / (np.sqrt(v) + epsilon)

    def adamw(self, p, g, moments, rate):
        p *= 1 - rate * self.settings["weight_decay"]
        self.adam(p, g, moments, rate)

    def rmsprop(self, p, g, moments, rate):
        rho = self.settings["rho"]
        moments[0] = rho * moments[0] + (1 - rho) * g * g
        moments[1] = self.settings["momentum"] * moments[1] + g / (np.sqrt(moments[0]) + self.settings["epsilon"])
        p -= rate * moments[1]

    def sgd(self, p, g, moments, rate):
        momentum = self.settings["momentum"]
        moments[0] = momentum * moments[0] + g
        p -= rate * (g + momentum * moments[0] if self.settings["nesterov"] else moments[0])


class Schedule:
    """rate: of the next epoch."""

    def __init__(self, schedule, rate, epochs):
        self.name, self.settings = next(iter(schedule.items())) if isinstance(schedule, dict) else (schedule, {})
        self.start, self.rate, self.epochs, self.done = rate, rate, epochs, 0
        self.best, self.wait = np.inf, 0
        self.of_epoch()

    def of_epoch(self):
        s, n = self.settings, self.done
        if self.name == "step":
            self.rate = self.start * s["factor"] ** (n // s["every"])
        if self.name == "cosine" and n < s["warmup"]:
            self.rate = self.start * (n + 1) / (s["warmup"] + 1)
        elif self.name == "cosine":
            turn = np.pi * (n - s["warmup"]) / (self.epochs - s["warmup"])
            self.rate = s["min"] + (self.start - s["min"]) * (1 + np.cos(turn)) / 2

    def after(self, loss):
        self.done += 1
        self.of_epoch()
        if self.name != "plateau":
            return
        self.wait += 1
        if loss < self.best - self.settings["min_delta"]:
            self.best, self.wait = loss, 0
        if self.wait >= self.settings["patience"]:
            self.rate, self.wait = max(self.rate * self.settings["factor"], self.settings["min"]), 0


# --- the probe: multinomial logistic regression, weights from zero ---

PROBE_ADAM = {"name": "adam", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}
PROBE_PLATEAU = {"plateau": {"factor": 0.1, "patience": 5, "min": 1e-6, "min_delta": 1e-4}}


def probe(train, labels, watched, watched_labels, classes, settings, seed):
    """Weights (classes×units) and bias of the epoch with the lowest watched loss, that loss, the best accuracy."""
    w, b = np.zeros((classes, train.shape[1])), np.zeros(classes)
    optimizer = Optimizer(PROBE_ADAM, [w, b])
    schedule = Schedule(PROBE_PLATEAU, settings["learning_rate"], settings["epochs"])
    best = (np.inf, None, None)
    accuracy = 0
    for epoch in range(1, settings["epochs"] + 1):
        order = permutation(seed, PROBE_SHUFFLE, epoch, len(train))
        for first in range(0, len(train), settings["batch_size"]):
            rows = order[first : first + settings["batch_size"]]
            leaves = [Node(w), Node(b)]
            loss = cross_entropy(Node(train[rows]) @ leaves[0].T + leaves[1], labels[rows])
            optimizer.step([w, b], gradients(loss, leaves), schedule.rate)
        logits = watched @ w.T + b
        loss = cross_entropy(Node(logits), watched_labels).value.item()
        accuracy = max(accuracy, (logits.argmax(axis=1) == watched_labels).mean())
        if loss < best[0]:
            best = (loss, w.copy(), b.copy())
        schedule.after(loss)
    return best[1], best[2], best[0], accuracy


# --- nets ---

class Net:
    """Trains as a stored spec says. `series` has a line for each epoch, in the daemon's names."""

    def __init__(self, spec, x, labels, watched, watched_labels, classes):
        self.spec, self.model, self.seed = spec, spec["model"], spec["training"]["seed"]
        self.kind, self.hidden = self.model["kind"], self.model["hidden"]
        columns = {"mlp": classes, "autoencoder": x.shape[1]}.get(self.kind, 0)
        self.p = self.first_weights(x.shape[1], columns)
        self.start = {name: p.copy() for name, p in self.p.items()}
        fixed = [f"{part}{layer}" for layer in range(self.model.get("freeze", 0)) for part in "wb"]
        if self.model["activation"] == "thresholded":
            fixed += [f"b{layer}" for layer in range(len(self.hidden))]
        self.trained = [name for name in self.p if name not in fixed]
        optimizer = Optimizer(spec["optimizer"], [self.p[name] for name in self.trained])
        epochs = spec["training"]["epochs"]
        schedule = Schedule(spec["training"]["schedule"], spec["optimizer"]["learning_rate"], epochs)
        self.series, self.best = [], (np.inf, None)
        for epoch in range(1, epochs + 1):
            line = {"train": self.pass_over(x, labels, self.batches(labels, epoch), epoch, optimizer, schedule.rate)}
            line["watched"] = self.evaluate(watched, watched_labels)
            self.series.append({**line, **self.shares, "learning_rate": schedule.rate})
            loss = line["watched"]["loss"]
            if loss < self.best[0]:
                self.best = (loss, {name: p.copy() for name, p in self.p.items()})
            schedule.after(loss)

    def batches(self, labels, epoch):
        """Places of the first samples, and the samples."""
        training, size = self.spec["training"], self.spec["training"]["batch_size"]
        order = permutation(self.seed, SHUFFLE, epoch, len(labels))
        if training["only_classes"] is not None:
            order = order[np.isin(labels[order], training["only_classes"])]
        if training["batching"] == "random":
            return [(first, order[first : first + size]) for first in range(0, len(order), size)]
        place, batches = 0, []
        for label in range(labels.max() + 1):
            alike = order[labels[order] == label]
            batches += [(place + first, alike[first : first + size]) for first in range(0, len(alike), size)]
            place += len(alike)
        return [batches[i] for i in permutation(self.seed, CLASS_ORDER, epoch, len(batches))]

    def draw(self, purpose, rows, columns, n_in, n_out):
        init = self.model["init"]
        if init == "glorot":
            draws = [2 * uniforms(self.seed, purpose, 0, unit, columns) - 1 for unit in range(rows)]
            return np.array(draws) * np.sqrt(6 / (n_in + n_out))
        scale = np.sqrt(2 / n_in) if init == "he" else init["normal"]
        return np.array([normals(self.seed, purpose, 0, unit, columns) for unit in range(rows)]) * scale

    def first_weights(self, d, columns):
        p = {}
        for layer, k in enumerate(self.hidden):
            p[f"w{layer}"] = self.draw(LAYER_INIT + layer if layer else INIT, k, d, d, k)
            p[f"b{layer}"] = np.zeros(k)
            d = k
        if columns and not self.model.get("tied"):
            p["v"] = self.draw(HEAD_INIT, d, columns, d, columns)
        return {**p, "c": np.zeros(columns)} if columns else p

    def terms(self, p, x, clean, labels, masks):
        """Of J, of one batch, as Nodes; and what the output units say."""
        loss, h, terms, d = self.spec["loss"], Node(x), {}, x.shape[1]
        freeze, layers = self.model.get("freeze", 0), (loss["ovr"] or {}).get("layers")

        def add(name, value):
            terms[name] = terms.get(name, 0) + value

        for layer in range(len(self.hidden)):
            h = constant(h) if self.kind == "ovr_encoder" else h  # each layer learns for itself
            w = p[f"w{layer}"]
            h, slope = activate(h @ w.T + p[f"b{layer}"], self.model)
            if layer < freeze:
                continue
            if loss["ovr"] and layer in (layers or [layer]):
                pairs = len(x) * (len(x) - 1)
                weight = loss["ovr"].get("lambda", loss["ovr"].get("lambda_per_pair", 0) / max(pairs, 1))
                add("ovr", weight * ovr(h, loss["ovr"]["form"]))
            if loss["activity"] and layer in (layers or [layer]):
                add("activity", magnitude(h.mean() - loss["activity"]["target"]))
            if loss["l2"]:
                add("l2", loss["l2"] * (w * w).sum())
            below, h = h, h * masks[layer] if masks and masks[layer] is not None else h
        if loss.get("l1"):
            add("l1", loss["l1"] * magnitude(below).sum() / len(x))
        if loss.get("kl"):
            add("kl", loss["kl"]["weight"] * kl(below, loss["kl"]["target"]))
        if loss.get("contractive"):
            add("contractive", loss["contractive"] * (slope**2.0 @ (w * w).sum(axis=1)).mean())
        if loss["l2"] and "v" in p:
            add("l2", loss["l2"] * (p["v"] * p["v"]).sum())
        output = h @ p.get("v", p["w0"]) + p["c"] if "c" in p else None
        if self.kind == "mlp":
            add("cross_entropy", cross_entropy(output, labels))
        if self.kind == "autoencoder":
            add("reconstruction", ((output - clean) ** 2.0).sum() / (len(x) * d))
        return terms, output

    def corrupted(self, x, epoch, first):
        """What a denoising net sees; each sample's numbers go by its place in the epoch."""
        kind, amount = next(iter((self.model.get("corruption") or {"none": 0}).items()))
        if kind == "gaussian":
            return x + amount * np.array([normals(self.seed, CORRUPTION, epoch, first + i, x.shape[1])
                                          for i in range(len(x))])
        if kind == "masking":
            return np.array([np.where(philox(self.seed, CORRUPTION, epoch, first + i, len(row)) <
                                      np.uint64(amount * 2**32), 0, row) for i, row in enumerate(x)])
        return x

    def masks(self, n, epoch, first):
        shares = self.model.get("dropout", 0)
        shares = shares if isinstance(shares, list) else [shares] * len(self.hidden)
        return [np.array([np.where(philox(self.seed, DROPOUT + layer, epoch, first + i, k) < np.uint64(p * 2**32),
                                   0, 1 / (1 - p)) for i in range(n)]) if p else None
                for layer, (k, p) in enumerate(zip(self.hidden, shares))]

    def note_shares(self, p, terms, x):
        """Each term's share of the gradient by norms, and the direction of OVR's step."""
        leaves = [p[name] for name in self.trained]
        by_term = {name: gradients(term, leaves) for name, term in terms.items()}
        norms = {name: np.sqrt(sum((g**2).sum() for g in found)) for name, found in by_term.items()}
        self.shares = {"gradient": {name: norm / sum(norms.values()) for name, norm in norms.items()}}
        if "ovr" not in terms or self.trained[0] != "w0":
            return
        h, _ = activate(Node(x) @ p["w0"].T + p["b0"], self.model)
        step, inputs = -by_term["ovr"][0], (h.value != 0).T @ x
        both = np.linalg.norm(step, axis=1) * np.linalg.norm(inputs, axis=1)
        self.shares["direction"] = ((step * inputs).sum(axis=1)[both > 0] / both[both > 0]).mean()

    def pass_over(self, x, labels, batches, epoch=0, optimizer=None, rate=None):
        means, n = {}, sum(len(rows) for _, rows in batches)
        if optimizer:
            self.shares = None
        for first, rows in batches:
            seen = self.corrupted(x[rows], epoch, first) if optimizer else x[rows]
            masks = self.masks(len(rows), epoch, first) if optimizer else None
            p = {name: Node(value) for name, value in self.p.items()}
            terms, output = self.terms(p, seen, x[rows], labels[rows], masks)
            if optimizer:
                if self.shares is None:
                    self.note_shares(p, terms, seen)
                found = gradients(sum(terms.values(), Node(0)), [p[name] for name in self.trained])
                optimizer.step([self.p[name] for name in self.trained], found, rate)
            figures = {name: term.value.item() for name, term in terms.items()}
            figures["loss"] = sum(figures.values())
            if self.kind == "mlp":
                figures["accuracy"] = (output.value.argmax(axis=1) == labels[rows]).mean()
            for name, value in figures.items():
                means[name] = means.get(name, 0) + value * len(rows) / n
        return means

    def evaluate(self, x, labels):
        size, order = self.spec["training"]["batch_size"], np.arange(len(x))
        return self.pass_over(x, labels, [(first, order[first : first + size]) for first in range(0, len(x), size)])


# --- k-means ---

def squares(x, centroids):
    return ((x[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2)


class KMeans:
    """As OneLayer. `counts`: of how many samples each centroid is the mean."""

    def __init__(self, spec, x, watched):
        settings, self.k, self.x = spec["training"], spec["model"]["hidden"][0], x
        self.seed, self.batch = settings["seed"], settings["batch_size"]
        self.centroids = (self.plus_plus if spec["model"]["init"] == "kmeans++" else self.samples)()
        self.sums, self.counts = np.zeros_like(self.centroids), np.zeros(self.k)
        self.series, self.unit = [], None
        for epoch in range(1, settings["epochs"] + 1):
            before = self.unit
            train = self.lloyd() if spec["model"]["kind"] == "kmeans" else self.online(epoch)
            self.series.append({"train": train, "test": squares(watched, self.centroids).min(axis=1).mean()})
            if before is not None and (before == self.unit).all():
                break

    def samples(self):
        order = permutation(self.seed, SHUFFLE, 0, len(self.x))
        return self.x[order[permutation(self.seed, CENTROIDS, 0, len(self.x))[: self.k]]]

    def plus_plus(self):
        order = permutation(self.seed, SHUFFLE, 0, len(self.x))
        chosen = [order[below(iter(philox(self.seed, CENTROIDS, 0, 0, 64).tolist()), len(order))]]
        while len(chosen) < self.k:
            square = squares(self.x[order], self.x[chosen]).min(axis=1)
            target = uniforms(self.seed, CENTROIDS, 0, len(chosen), 1)[0] * square.sum()
            chosen.append(order[np.searchsorted(np.cumsum(square), target)])
        return self.x[chosen]

    def lloyd(self):
        square = squares(self.x, self.centroids)
        self.unit = square.argmin(axis=1)
        self.counts = np.bincount(self.unit, minlength=self.k)
        assert self.counts.all(), "choose a seed that leaves no centroid empty"
        for unit in range(self.k):
            self.centroids[unit] = self.x[self.unit == unit].mean(axis=0)
        return square.min(axis=1).mean()

    def online(self, epoch):
        order, total = permutation(self.seed, SHUFFLE, epoch, len(self.x)), 0
        for first in range(0, len(order), self.batch):
            batch = self.x[order[first : first + self.batch]]
            square = squares(batch, self.centroids)
            total += square.min(axis=1).sum()
            for sample, unit in zip(batch, square.argmin(axis=1)):
                self.counts[unit] += 1
                self.centroids[unit] += (sample - self.centroids[unit]) / self.counts[unit]
        return total / len(order)


def triangle(x, centroids):
    """Coates, Lee & Ng 2011."""
    distance = np.sqrt(squares(x, centroids))
    return np.maximum(distance.mean(axis=1, keepdims=True) - distance, 0)


def hard(x, centroids):
    return np.eye(len(centroids))[squares(x, centroids).argmin(axis=1)]


# --- measures of a code ---

def sparsity(h):
    there = np.sqrt((h * h).sum(axis=1)) > 1e-12
    unit = h[there] / np.sqrt((h[there] ** 2).sum(axis=1, keepdims=True))
    n = len(unit)
    return {
        "near_zero": (np.abs(h) < 0.1).mean(),
        "zero": (h == 0).mean(),
        "overlap": ((unit.sum(axis=0) ** 2).sum() - n) / (n * (n - 1)),
        "dead_units": int((np.abs(h).max(axis=0) == 0).sum()),
        "zero_codes": int((~there).sum()),
    }
