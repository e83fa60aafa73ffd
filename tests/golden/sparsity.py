"""Sparsity of vectors and distances of histograms, for tests/core/test_sparsity.c and
test_histogram.c.

Written from the definitions with numpy and scipy; /usr/bin/python3 tests/golden/sparsity.py
(Debian: python3-numpy, python3-scipy)
"""
import numpy as np
from scipy.integrate import quad

VECTORS = {
    "ramp": np.arange(1, 9, dtype=float),
    "zeros and signs": np.array([0, -3, 0.5, 0, 0, 2, -0.25, 0, 0, 7]),
    "one hot": np.array([0, 0, 5, 0]),
    "wide": np.array([1e-6, 1e-3, 1, 1e3, 0, 0]),
}


def sparsity(v):
    v, m = np.abs(v), len(v)
    l1, l2 = v.sum(), np.sqrt((v**2).sum())
    # Gini as twice the area between the Lorenz curve (a polygon) and the diagonal.
    lorenz = np.concatenate([[0], np.cumsum(np.sort(v)) / l1])
    gini = 1 - 2 * np.trapz(lorenz, dx=1 / m)
    a = (v.mean() ** 2) / (v**2).mean()
    return (np.sqrt(m) - l1 / l2) / (np.sqrt(m) - 1), (1 - a) / (1 - 1 / m), gini


for name, v in VECTORS.items():
    print(name + ":", ", ".join("%.15g" % s for s in sparsity(v)))

EDGES = np.concatenate([[0], 0.1 * 2 ** (np.arange(-16, 41) / 4)])


def cdf(zero, counts, top):
    """The distribution function as points of a polygon."""
    total = zero + sum(counts.values())
    at = np.append(EDGES, top)
    mass = np.zeros(len(EDGES))
    for b, n in counts.items():
        mass[b] = n
    return at, np.concatenate([[zero], zero + np.cumsum(mass)]) / total


def distance(a, b, top):
    x, f_a = cdf(*a, top)
    _, f_b = cdf(*b, top)
    gap = lambda t: abs(np.interp(t, x, f_a) - np.interp(t, x, f_b))
    w = sum(quad(gap, lo, hi, epsabs=1e-14, limit=500)[0] for lo, hi in zip(x, x[1:]))
    return np.abs(f_a - f_b).max(), w


PAIRS = {
    "signs change": ((50, {3: 10, 17: 20, 20: 20}), (30, {3: 40, 18: 10, 19: 20}), EDGES[-1]),
    "only the atom": ((100, {}), (60, {30: 40}), EDGES[-1]),
    "open bin": ((10, {57: 10}), (10, {40: 5, 57: 5}), 300.0),
}
for name, (a, b, top) in PAIRS.items():
    print(name + ":", ", ".join("%.12g" % d for d in distance(a, b, top)))
