"""Weights after each step of the optimisers, and learning rates of the schedules, for
tests/core/test_optimizer.c.

Written from the textbook formulas, one weight at a time; python3 tests/golden/optimizer.py
"""
from math import cos, pi, sqrt

GRADIENTS = [0.5, -0.25, 0.125, 2.0, 0.0]


def adam(rate=0.1, beta1=0.9, beta2=0.999, epsilon=1e-7, decay=0.0):
    w, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        w -= rate * decay * w
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


def rmsprop(rate=0.1, rho=0.9, epsilon=1e-7, momentum=0.0):
    w, square, velocity = 1.0, 0.0, 0.0
    for g in GRADIENTS:
        square = rho * square + (1 - rho) * g * g
        velocity = momentum * velocity + g / (sqrt(square) + epsilon)
        w -= rate * velocity
        yield w


def step(rate=1.0, every=2, factor=0.5, epochs=7):
    for epoch in range(epochs):
        yield rate
        if (epoch + 1) % every == 0:
            rate *= factor


def cosine(rate=1.0, lowest=0.1, warmup=0, epochs=6):
    for epoch in range(epochs):
        if epoch < warmup:
            yield rate * (epoch + 1) / (warmup + 1)
        else:
            share = (epoch - warmup) / (epochs - warmup)
            yield lowest + 0.5 * (rate - lowest) * (1 + cos(pi * share))


for name, numbers in [
    ("adam", adam()),
    ("adam, epsilon 0.5", adam(epsilon=0.5)),
    ("adamw", adam(decay=0.5)),
    ("sgd", sgd()),
    ("momentum", sgd(momentum=0.9)),
    ("nesterov", sgd(momentum=0.9, nesterov=True)),
    ("rmsprop", rmsprop()),
    ("rmsprop, rho 0.5, epsilon 0.5", rmsprop(rho=0.5, epsilon=0.5)),
    ("rmsprop, momentum", rmsprop(momentum=0.9)),
    ("step", step()),
    ("cosine", cosine()),
    ("cosine, warm-up 2", cosine(warmup=2)),
]:
    print(name + ":", ", ".join("%.12g" % x for x in numbers))
