"""What the daemon computes, once more: plain numpy in float64, written from the formulas and sharing
no code with it. Speed is of no account here: OVR is taken over all pairs.
"""
import numpy as np

# --- random numbers: Philox4x32-10 (Salmon et al. 2011), streams by (seed, purpose, epoch, index) ---

INIT, SHUFFLE, HEAD_INIT, PROBE_SHUFFLE, CENTROIDS = 1, 2, 7, 8, 11


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

def standardize(train):
    sigma = train.std(axis=0)
    return train.mean(axis=0), 1 / np.where(sigma > 0, sigma, 1)


def pca(train, components):
    """Mean, axes in rows (falling variance, largest coefficient positive) and variances."""
    values, vectors = np.linalg.eigh(np.cov(train, rowvar=False))
    axes = vectors[:, ::-1][:, :components].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return train.mean(axis=0), axes * np.sign(largest), values[::-1][:components]


# --- losses: value and gradient ---

def ovr_cosine(h):
    """Σ_i Σ_{j≠i} cos(h_i, h_j), all pairs."""
    norm = np.sqrt((h * h).sum(axis=1))
    there = norm > 1e-12
    unit = np.where(there[:, None], h / np.where(there, norm, 1)[:, None], 0)
    pairs = unit @ unit.T
    np.fill_diagonal(pairs, 0)
    at_unit = 2 * (unit.sum(axis=0) - unit)
    along = (at_unit * unit).sum(axis=1, keepdims=True)
    gradient = (at_unit - along * unit) / np.where(there, norm, 1)[:, None]
    return pairs.sum(), np.where(there[:, None], gradient, 0)


def ovr_raw(h):
    pairs = h @ h.T
    np.fill_diagonal(pairs, 0)
    return pairs.sum(), 2 * (h.sum(axis=0) - h)


def activity(h, target):
    off = h.mean() - target
    return abs(off), np.full_like(h, np.sign(off) / h.size)


def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    delta = p.copy()
    delta[rows, labels] -= 1
    return -np.log(p[rows, labels]).mean(), delta / len(labels)


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
            _, delta = cross_entropy(train[rows] @ w.T + b, labels[rows])
            optimizer.step([w, b], [delta.T @ train[rows], delta.sum(axis=0)], schedule.rate)
        logits = watched @ w.T + b
        loss, _ = cross_entropy(logits, watched_labels)
        accuracy = max(accuracy, (logits.argmax(axis=1) == watched_labels).mean())
        if loss < best[0]:
            best = (loss, w.copy(), b.copy())
        schedule.after(loss)
    return best[1], best[2], best[0], accuracy


# --- encoder and classifier of one hidden layer ---

class OneLayer:
    """Trains as a stored spec says. `series` has a line for each epoch, in the daemon's names."""

    def __init__(self, spec, x, labels, watched, watched_labels, classes):
        self.spec, self.classes = spec, classes if spec["model"]["kind"] == "mlp" else 0
        self.seed, self.epochs = spec["training"]["seed"], spec["training"]["epochs"]
        self.p = self.first_weights(x.shape[1], spec["model"]["hidden"][0])
        self.start = [p.copy() for p in self.p]
        optimizer = Optimizer(spec["optimizer"], self.p)
        schedule = Schedule(spec["training"]["schedule"], spec["optimizer"]["learning_rate"], self.epochs)
        self.series = []
        for epoch in range(1, self.epochs + 1):
            train = self.pass_over(x, labels, permutation(self.seed, SHUFFLE, epoch, len(x)), optimizer, schedule.rate)
            test = self.pass_over(watched, watched_labels, np.arange(len(watched)))
            self.series.append({"train": train, "test": test, "learning_rate": schedule.rate})
            schedule.after(test["loss"])

    def draw(self, purpose, units, n_in, n_out):
        """units×…: rows of n_in (a layer) or n_out (a read-out) weights."""
        init, row = self.spec["model"]["init"], n_in if purpose == INIT else n_out
        if init == "glorot":
            draws = [2 * uniforms(self.seed, purpose, 0, unit, row) - 1 for unit in range(units)]
            return np.array(draws) * np.sqrt(6 / (n_in + n_out))
        scale = np.sqrt(2 / n_in) if init == "he" else init["normal"]
        return np.array([normals(self.seed, purpose, 0, unit, row) for unit in range(units)]) * scale

    def first_weights(self, d, k):
        layer = [self.draw(INIT, k, d, k), np.zeros(k)]
        return layer + ([self.draw(HEAD_INIT, k, k, self.classes), np.zeros(self.classes)] if self.classes else [])

    def loss(self, x, labels):
        """J of a batch, its terms and its gradient."""
        w, b = self.p[:2]
        h = np.maximum(x @ w.T + b, 0)
        g, terms, upper = np.zeros_like(h), {}, []
        settings = self.spec["loss"]
        if settings["ovr"]:
            value, gradient = {"cosine": ovr_cosine, "raw": ovr_raw}[settings["ovr"]["form"]](h)
            weight = settings["ovr"]["lambda"]
            terms["ovr"], g = weight * value, g + weight * gradient
        if settings["activity"]:
            terms["activity"], gradient = activity(h, settings["activity"]["target"])
            g = g + gradient
        if self.classes:
            v, c = self.p[2:]
            logits = h @ v + c
            terms["cross_entropy"], delta = cross_entropy(logits, labels)
            upper, g = [h.T @ delta, delta.sum(axis=0)], g + delta @ v.T
            terms["accuracy"] = (logits.argmax(axis=1) == labels).mean()
        g = g * (h > 0)
        terms["loss"] = sum(value for name, value in terms.items() if name != "accuracy")
        return terms, [g.T @ x, g.sum(axis=0)] + upper

    def pass_over(self, x, labels, order, optimizer=None, rate=None):
        means, batch = {}, self.spec["training"]["batch_size"]
        for first in range(0, len(x), batch):
            rows = order[first : first + batch]
            terms, gradients = self.loss(x[rows], labels[rows])
            for name, value in terms.items():
                means[name] = means.get(name, 0) + value * len(rows) / len(x)
            if optimizer:
                optimizer.step(self.p, gradients, rate)
        return means


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
