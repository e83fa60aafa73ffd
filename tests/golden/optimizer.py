"""Weights after each step of the optimisers, for tests/core/test_optimizer.c.

Written from the textbook formulas, one weight at a time; python3 tests/golden/optimizer.py
"""
from math import sqrt

GRADIENTS = [0.5, -0.25, 0.125, 2.0, 0.0]


def adam(rate=0.1, beta1=0.9, beta2=0.999, epsilon=1e-7):
    w, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        w -= rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)
        yield w


def sgd(rate=0.1, momentum=0.0, nesterov=False):
    w, velocity = 1.0, 0.0
    for g in GRADIENTS:
        velocity = momentum * velocity + g
        w -= rate * (g + momentum * velocity if nesterov else velocity)
        yield w


for name, weights in [
    ("adam", adam()),
    ("adam, epsilon 0.5", adam(epsilon=0.5)),
    ("sgd", sgd()),
    ("momentum", sgd(momentum=0.9)),
    ("nesterov", sgd(momentum=0.9, nesterov=True)),
]:
    print(name + ":", ", ".join("%.12g" % w for w in weights))
