"""Reverse-mode differentiation of numpy formulas: what the models are written in has no gradients of its
own that could be wrong together with the daemon's.
"""
import numpy as np


def shrink(gradient, shape):
    """Undoes broadcasting."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(axis for axis, n in enumerate(shape) if n == 1 and gradient.shape[axis] > 1)
    return gradient.sum(axis=axes, keepdims=True)


class Node:
    """A value, and from which others it came: (node, gradient at here → gradient at there)."""

    __array_priority__ = 1  # numpy leaves array ∘ Node to us

    def __init__(self, value, origins=()):
        self.value, self.origins = np.asarray(value, dtype=np.float64), origins

    def __add__(self, other):
        other = node(other)
        return Node(self.value + other.value, [(self, lambda g: g), (other, lambda g: g)])

    def __mul__(self, other):
        other = node(other)
        return Node(self.value * other.value, [(self, lambda g: g * other.value), (other, lambda g: g * self.value)])

    def __matmul__(self, other):
        other = node(other)
        return Node(self.value @ other.value,
                    [(self, lambda g: g @ other.value.T), (other, lambda g: self.value.T @ g)])

    def __pow__(self, power):
        return self.apply(self.value**power, power * self.value ** (power - 1))

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -node(other)

    def __rsub__(self, other):
        return node(other) + -self

    def __truediv__(self, other):
        return self * node(other) ** -1.0

    def __rtruediv__(self, other):
        return node(other) * self**-1.0

    __radd__, __rmul__ = __add__, __mul__

    def apply(self, value, slope):
        """A function of each element."""
        return Node(value, [(self, lambda g: g * slope)])

    @property
    def T(self):
        return Node(self.value.T, [(self, lambda g: g.T)])

    def sum(self, axis=None):
        value = self.value.sum(axis=axis, keepdims=True)
        return Node(value, [(self, lambda g: np.broadcast_to(g, self.value.shape))])

    def mean(self, axis=None):
        total = self.sum(axis)
        return total * (total.value.size / self.value.size)


def node(value):
    return value if isinstance(value, Node) else Node(value)


def exp(x):
    return x.apply(np.exp(x.value), np.exp(x.value))


def log(x):
    return x.apply(np.log(x.value), 1 / x.value)


def magnitude(x):
    return x.apply(np.abs(x.value), np.sign(x.value))


def constant(x):
    """Nothing is propagated through it."""
    return Node(x.value)


def gradients(result, leaves):
    """Of a single number."""
    order, seen = [], set()

    def visit(at):
        if id(at) not in seen:
            seen.add(id(at))
            for origin, _ in at.origins:
                visit(origin)
            order.append(at)

    visit(result)
    found = {id(result): np.ones(result.value.shape)}
    for at in reversed(order):
        for origin, back in at.origins:
            there = shrink(back(found[id(at)]), origin.value.shape)
            found[id(origin)] = found.get(id(origin), 0) + there
    return [found.get(id(leaf), np.zeros(leaf.value.shape)) for leaf in leaves]
