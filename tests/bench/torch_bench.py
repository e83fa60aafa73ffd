#!/usr/bin/python3
"""The work of bench.c and of a whole experiment in PyTorch, as a careful user writes it.

A process that lives for a whole run of benchmarks: it reads one JSON command a line on standard
input ({"do": "step", …}) and answers with one JSON object a line. Formulas, data, order of samples
and precision are those of bench.c; each function says where it takes less trouble than ovrd does.
"""
import ctypes
import json
import math
import sys
import time

import numpy
import torch
import torch.nn.functional as F

ROWS = 4096  # prepared samples of a step, as in step.c
CLASSES = 10


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return (values[middle] + values[~middle]) / 2


# --- the OVR-Encoder -------------------------------------------------------------------------------

class Encoder:
    """H = relu(X Wᵀ + b), J = λ·OVR + |mean H − 0.5|, both in O(N·K)."""

    def __init__(self, weight, bias, rate, foreach, penalty=5e-5):
        self.weight = weight.clone().requires_grad_()
        self.bias = bias.clone().requires_grad_()
        self.penalty = penalty
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=rate, eps=1e-7, foreach=foreach)

    def encode(self, x):
        return torch.relu_(F.linear(x, self.weight, self.bias))

    def loss(self, h):
        norms = torch.linalg.vector_norm(h, dim=1)
        scale = torch.where(norms > 1e-12, 1 / norms.clamp_min(1e-12), torch.zeros_like(norms))
        s = scale @ h  # the sum of the normalised rows, without writing these down
        ovr = s @ s - torch.count_nonzero(scale)
        return self.penalty * ovr + (h.mean() - 0.5).abs()

    def step(self, x):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.encode(x))
        loss.backward()
        self.optimizer.step()
        return loss


def read_array(command, name, shape, dtype="float32"):
    array = numpy.fromfile(f"{command['data']}/{name}", dtype=dtype)
    return torch.from_numpy(array.astype("int64") if dtype == "uint32" else array).reshape(shape)


def fresh_encoder(command, foreach):
    d, k = command["d"], command["k"]
    return Encoder(read_array(command, "weight.f32", (k, d)), read_array(command, "bias.f32", (k,)),
                   command["rate"], foreach)


def step(command):
    """Steps from the same weights through the same batches as `bench step`."""
    samples = read_array(command, "samples.f32", (ROWS, command["d"]))
    encoder = fresh_encoder(command, command["foreach"])
    n, steps, t = command["n"], command["steps"], 0
    times = []
    for _ in range(command["rounds"] + 1):
        started = time.perf_counter()
        for _ in range(steps):
            index = (torch.arange(t * n, (t + 1) * n) * 1237) % ROWS
            loss = encoder.step(samples[index])
            t += 1
        times.append(1e3 * (time.perf_counter() - started) / steps)
    return {"step_ms": median(times[1:]), "loss": loss.item(), "steps": t}


def optimizer(command):
    n = command["d"] * command["k"]
    weight = torch.zeros(n, requires_grad=True)
    weight.grad = (torch.arange(n) % 31 - 15).float()
    adam = torch.optim.Adam([weight], lr=5e-4, eps=1e-7, foreach=command["foreach"])
    times = []
    for _ in range(command["rounds"] + 1):
        started = time.perf_counter()
        adam.step()
        times.append(1e3 * (time.perf_counter() - started))
    return {"ms": median(times[1:])}


# --- the probe -------------------------------------------------------------------------------------

class Plateau:
    """The schedule of both phases, as in core/optimizer.c."""

    def __init__(self, optimizer):
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=4, threshold=1e-4, threshold_mode="abs", min_lr=1e-6)

    def step(self, loss):
        self.scheduler.step(loss)


class Probe:
    def __init__(self, units, foreach):
        self.weight = torch.zeros(CLASSES, units, requires_grad=True)
        self.bias = torch.zeros(CLASSES, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=5e-5, eps=1e-7, foreach=foreach)

    def train(self, code, labels, order):
        for first in range(0, len(order), 32):
            index = order[first:first + 32]
            self.optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(F.linear(code[index], self.weight, self.bias), labels[index]).backward()
            self.optimizer.step()

    @torch.no_grad()
    def evaluate(self, code, labels):
        loss, right = 0.0, 0
        for first in range(0, len(code), 1024):
            logits, y = F.linear(code[first:first + 1024], self.weight, self.bias), labels[first:first + 1024]
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            right += (logits.argmax(1) == y).sum().item()
        return loss / len(code), right / len(code)


def hashed(x):
    x = x.astype(numpy.uint32)
    x ^= x >> 16
    x *= numpy.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= numpy.uint32(0x846CA68B)
    return x ^ x >> 16


def make_code(first, n, units, share):
    """The codes and labels of probe.c."""
    labels = hashed(numpy.arange(first, first + n, dtype=numpy.uint64) + 0x80000000) % CLASSES
    code = torch.empty(n, units)
    kinds = numpy.arange(units) % CLASSES
    for i in range(0, n, 500):
        rows = numpy.arange(first + i, first + min(i + 500, n), dtype=numpy.uint64)
        h = hashed(rows[:, None] * units + numpy.arange(units, dtype=numpy.uint64))
        value = ((h & 255) + 1).astype(numpy.float32) / 256
        value[h >> 8 >= int(share * (1 << 24))] = 0
        value[labels[i:i + 500, None] == kinds] *= 2
        code[i:i + 500] = torch.from_numpy(value)
    return code, torch.from_numpy(labels.astype(numpy.int64))


kept_code = {}  # of the last shape: making it takes longer than an epoch


def probe(command):
    """Epochs of training and evaluation on a dense code in memory, as `bench probe`."""
    shape = (command["samples"], command["k"], command["share"])
    if shape not in kept_code:
        kept_code.clear()
        n, units, share = shape
        kept_code[shape] = make_code(0, n, units, share), make_code(n, n // 5, units, share)
    (train, train_labels), (watch, watch_labels) = kept_code[shape]
    order = read_array(command, "order.u32", (command["epochs"], len(train)), "uint32")
    model, seconds, losses = Probe(train.shape[1], command["foreach"]), [], []
    for epoch in range(command["epochs"]):
        started = time.perf_counter()
        model.train(train, train_labels, order[epoch])
        loss, accuracy = model.evaluate(watch, watch_labels)
        seconds.append(time.perf_counter() - started)
        losses.append(loss)
    return {"epoch_seconds": median(seconds), "loss": min(losses), "accuracy": accuracy}


# --- preprocessing ---------------------------------------------------------------------------------

RECORD = 3073


def read_images(path, limit=None):
    records = numpy.fromfile(path, dtype=numpy.uint8).reshape(-1, RECORD)[:limit]
    return (torch.from_numpy(records[:, 1:].astype(numpy.float32)),
            torch.from_numpy(records[:, 0].astype(numpy.int64)))


def fit_pca(x, components):
    """Standardises x in place. Sums and covariance in float32, eigenvectors in float64."""
    mean = x.mean(0)
    scale = 1 / x.std(0, unbiased=False)
    x.sub_(mean).mul_(scale)
    covariance = (x.T @ x).double() / (len(x) - 1)  # of centred columns
    values, vectors = torch.linalg.eigh(covariance)
    axes = vectors[:, -components:].flip(1).float().contiguous()
    return mean, scale, axes, values[-components:].flip(0)


def pca(command):
    if command["cifar10"]:
        x, _ = read_images(command["cifar10"], command["samples"])
    else:
        bytes_ = numpy.fromfile(f"{command['data']}/pixels.u8", dtype=numpy.uint8)
        x = torch.from_numpy(bytes_.reshape(-1, RECORD - 1).astype(numpy.float32))
    started = time.perf_counter()
    _, _, axes, values = fit_pca(x, command["components"])
    fitted = time.perf_counter()
    x @ axes
    return {"seconds": time.perf_counter() - started, "fit_seconds": fitted - started,
            "first_variance": values[0].item(), "kept_variance": values.sum().item()}


# --- a whole experiment ----------------------------------------------------------------------------

@torch.no_grad()
def evaluate_encoder(encoder, x, batch):
    """Loss, sparsity, dead units and overlap of a split. (ovrd also takes a histogram.)"""
    loss = near_zero = zero = 0.0
    units = encoder.weight.shape[0]
    direction, largest, codes = torch.zeros(units), torch.zeros(units), 0
    for first in range(0, len(x), batch):
        h = encoder.encode(x[first:first + batch])
        loss += encoder.loss(h).item() * len(h)
        near_zero += (h < 0.1).sum().item()
        zero += (h == 0).sum().item()
        norms = torch.linalg.vector_norm(h, dim=1)
        direction += torch.where(norms > 1e-12, 1 / norms.clamp_min(1e-12), norms) @ h
        codes += (norms > 1e-12).sum().item()
        largest = torch.maximum(largest, h.amax(0))
    return {"loss": loss / len(x), "near_zero": near_zero / (len(x) * units), "zero": zero / (len(x) * units),
            "dead_units": (largest == 0).sum().item(),
            "overlap": ((direction @ direction).item() - codes) / max(codes * (codes - 1), 1)}


@torch.no_grad()
def encode_all(encoder, x):
    code = torch.empty(len(x), encoder.weight.shape[0])
    for first in range(0, len(x), 1024):
        code[first:first + 1024] = encoder.encode(x[first:first + 1024])
    return code


def train_encoder(encoder, train, test, spec):
    plateau, batch = Plateau(encoder.optimizer), spec["batch_size"]
    best = math.inf
    for _ in range(spec["epochs"]):
        order = torch.randperm(len(train))
        for first in range(0, len(train), batch):
            encoder.step(train[order[first:first + batch]])
        measures = evaluate_encoder(encoder, test, batch)
        plateau.step(measures["loss"])
        if measures["loss"] < best:
            best = measures["loss"]
            weight, bias = encoder.weight.detach().clone(), encoder.bias.detach().clone()
    with torch.no_grad():
        encoder.weight.copy_(weight)
        encoder.bias.copy_(bias)
    return measures


def train_probe(train, train_labels, test, test_labels, epochs, foreach):
    model, best = Probe(train.shape[1], foreach), 0.0
    plateau = Plateau(model.optimizer)
    for _ in range(epochs):
        model.train(train, train_labels, torch.randperm(len(train)))
        loss, accuracy = model.evaluate(test, test_labels)
        plateau.step(loss)
        best = max(best, accuracy)
    return best


def whole(command):
    """The reference experiment from the files to the probe's accuracy."""
    torch.manual_seed(command["seed"])
    kept_code.clear()
    marks = [time.perf_counter()]
    train, train_labels = read_images(command["train"], command["train_limit"])
    test, test_labels = read_images(command["test"], command["test_limit"])
    mean, scale, axes, _ = fit_pca(train, command["components"])
    train = train @ axes
    test = test.sub_(mean).mul_(scale) @ axes
    marks.append(time.perf_counter())
    weight = torch.empty(command["units"], command["components"]).normal_(0, command["init"])
    encoder = Encoder(weight, torch.zeros(command["units"]), command["rate"], command["foreach"],
                      command["lambda"])
    measures = train_encoder(encoder, train, test, command)
    marks.append(time.perf_counter())
    train, test = encode_all(encoder, train), encode_all(encoder, test)
    torch.set_num_threads(command["probe_threads"])
    accuracy = train_probe(train, train_labels, test, test_labels, command["probe_epochs"], command["foreach"])
    marks.append(time.perf_counter())
    preparing, training, probing = (b - a for a, b in zip(marks, marks[1:]))
    return {"seconds": marks[-1] - marks[0], "preparing": preparing, "training": training, "probing": probing,
            "loss": measures["loss"], "near_zero": measures["near_zero"], "accuracy": accuracy}


# --- commands --------------------------------------------------------------------------------------

def blas_kernel():
    """The kernel that OpenBLAS chose in this process; None with another BLAS."""
    try:
        name = ctypes.CDLL("libopenblas.so.0").openblas_get_corename
    except (OSError, AttributeError):
        return None
    name.restype = ctypes.c_char_p
    return name().decode()


def start(_command):
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "blas_kernel": blas_kernel()}


COMMANDS = {"start": start, "step": step, "optimizer": optimizer, "probe": probe, "pca": pca, "whole": whole}


def main():
    torch.set_flush_denormal(True)  # before any thread is started: they inherit it
    for line in sys.stdin:
        command = json.loads(line)
        if "threads" in command:
            torch.set_num_threads(command["threads"])
        print(json.dumps(COMMANDS[command["do"]](command)), flush=True)


if __name__ == "__main__":
    main()
