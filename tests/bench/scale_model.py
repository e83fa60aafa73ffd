"""What a training step of one wide layer costs on so many nodes: counted exactly where it can be counted (who has which
shards, what is sent), and else constants, which scale.py measures.

    step = compute + uneven + memory + fold + fixed + rounds·α + received/β

    compute   units of a thread, were they divided evenly, · D · N · seconds, of the kind of model
    uneven    what the busiest thread has more, since it has whole shards
    memory    bytes of weights and moments that a step reads and writes, by the bandwidth of the node
    fold      what came from the others is added up: read, read, write
    fixed     what every rank does for itself, such as packing the batch, shared by its threads
    rounds    of the rank that meets others most often; ⌈log₂ R⌉ for the stop flag
    received  by the rank that receives most
"""
import dataclasses
import functools
import math

SHARD, BLOCK = 128, 512  # SHARD_UNITS of core/kernels.h, BY_UNIT of core/team.h
INPUTS, ROWS, CLASSES = 3072, 128, 10
TRAIN_ROWS = 50000
FLOAT, DOUBLE = 4, 8
UNIT_FIGURES = 11  # core/units.h

# Products of two matrices that a step takes for each weight of the hidden layer, forward and backward; weights for each
# pair of unit and input; and bytes that it moves for each such pair. A weight is read for the product and again for
# Adam's update, as are two moments, and all three are written: 7 floats. The autoencoder reads its decoder once more;
# and a shard's part of the reconstruction is written, read and added up: 3 floats for each N·D/128 of a unit, N = 128.
PRODUCTS = {"ovr_encoder": 2, "mlp": 2, "autoencoder": 5}
WEIGHTS = {"ovr_encoder": 1, "mlp": 1, "autoencoder": 2}
MOVED = {"ovr_encoder": 7 * FLOAT, "mlp": 7 * FLOAT, "autoencoder": (7 + 8) * FLOAT + 3 * FLOAT * ROWS // SHARD}


# --- counted ---------------------------------------------------------------------------------------

def cut(shards, ranks):
    """Shards of each rank, (first, how many): as core/team.c does it."""
    whole = BLOCK // SHARD
    blocks = -(-shards // whole)
    ends = [min(blocks * rank // ranks * whole, shards) for rank in range(ranks + 1)]
    return [(first, end - first) for first, end in zip(ends, ends[1:])]


def subtrees(first, n, shards):
    """How many nodes of the fixed tree a rank's shards are added up to."""
    count, at, end = 0, first, first + n
    while at < end:
        size = 1
        while at % (2 * size) == 0 and size < shards and min(at + 2 * size, shards) <= end:
            size *= 2
        at += min(size, end - at)
        count += 1
    return count


def sums(kind, rows=ROWS, inputs=INPUTS, classes=CLASSES):
    """The vectors that are summed in a step, (elements, bytes of one): norms of the rows and six sums of the batch, with
    an mlp's logits; then t; then the reconstruction."""
    logits = classes if kind == "mlp" else 0
    return [(rows * (logits + 1) + 6, DOUBLE), (rows, DOUBLE)] + [(rows * inputs, FLOAT)] * (kind == "autoencoder")


STOP = 4  # bytes: the first rank says whether to go on
LONG = 64 << 10  # LONG_SUM of core/team.c


@dataclasses.dataclass
class Traffic:
    """Of each rank."""
    meetings: list
    sent: list       # bytes
    received: list
    added: list      # bytes, of what was received


class Meeting:
    """The ranks' part of a sum, as core/team.c does it: groups that double."""

    def __init__(self, length, size, shards, ranks, traffic):
        self.length, self.size, self.shards, self.traffic = length, size, shards, traffic
        self.starts = [first for first, _ in cut(shards, ranks)] + [shards]
        self.groups = 1 << (ranks.bit_length() - 1)
        self.pairs = ranks - self.groups

    def speaker(self, group):
        return group + min(group, self.pairs)

    def nodes(self, begin, end):
        """Of ranks begin .. end - 1."""
        return subtrees(self.starts[begin], self.starts[end] - self.starts[begin], self.shards)

    def tell(self, sender, receiver, elements, is_sum=False):
        self.traffic.sent[sender] += elements * self.size
        self.traffic.received[receiver] += elements * self.size
        self.traffic.added[receiver] += 0 if is_sum else elements * self.size

    def met(self, *ranks):
        for rank in ranks:
            self.traffic.meetings[rank] += 1

    def pair(self, is_sum):
        """Second ranks say what they have, or hear the sum."""
        for group in range(self.pairs):
            first, second = self.speaker(group), self.speaker(group) + 1
            self.met(first, second)
            if is_sum:
                self.tell(first, second, self.length, is_sum)
            else:
                self.tell(second, first, self.nodes(second, second + 1) * self.length)

    def double(self, size, left):
        """left: elements that each group still has a part in."""
        if size == self.groups:
            return
        is_long, keep = self.length * self.size >= LONG, {}
        for group, n in left.items():
            keep[group] = n if not is_long else n - n // 2 if group & size else n // 2
        for group, n in left.items():
            first = group & ~(size - 1)
            own, partner = self.speaker(group), self.speaker(group ^ size)
            self.met(own)
            self.tell(own, partner, self.nodes(self.speaker(first), self.speaker(first + size)) * keep[group ^ size])
        self.double(2 * size, keep)
        for group in left if is_long else ():
            self.met(self.speaker(group))
            self.tell(self.speaker(group), self.speaker(group ^ size), keep[group], is_sum=True)

    def run(self):
        self.pair(is_sum=False)
        self.double(1, {group: self.length for group in range(self.groups)})
        self.pair(is_sum=True)


@functools.lru_cache(None)
def traffic(kind, units, ranks, **shape):
    made = Traffic(*([0] * ranks for _ in range(4)))
    for length, size in sums(kind, **shape):
        Meeting(length, size, -(-units // SHARD), ranks, made).run()
    made.meetings = [n + 1 for n in made.meetings]
    made.sent[0] += STOP * (ranks - 1)
    made.received[1:] = [n + STOP for n in made.received[1:]]
    return made


def parameters(kind, units, inputs=INPUTS, classes=CLASSES):
    on_top = {"ovr_encoder": 0, "mlp": (units + 1) * classes, "autoencoder": (units + 1) * inputs}
    return units * (inputs + 1) + on_top[kind]


def data_parallel(kind, units, ranks):
    """Bytes a step and rank of an all-reduce of all gradients that wastes nothing."""
    return 2 * (ranks - 1) / ranks * FLOAT * parameters(kind, units)


def most_ranks(units):
    return min(-(-units // BLOCK), 1024)


# --- computed --------------------------------------------------------------------------------------

@dataclasses.dataclass
class Link:
    name: str
    latency: float  # seconds of a meeting of two
    bandwidth: float  # bytes/s


@dataclasses.dataclass
class Node:
    cores: int
    core_bandwidth: float  # bytes/s that one core can move
    bandwidth: float       # that all together can


@dataclasses.dataclass
class Constants:
    seconds: dict  # kind → of a multiplication and addition in the layer's products, all else of a unit included
    fixed: dict    # kind → seconds of a step, of one thread


def step(kind, units, ranks, threads, constants, node, link, *, ranks_a_node=1, shard=SHARD):
    """Seconds of a step by term. shard: units that one thread works on at a time."""
    shards_of_rank = max(n for _, n in cut(-(-units // SHARD), ranks)) * SHARD // shard
    units_of_thread = -(-shards_of_rank // threads) * shard
    units_of_rank = min(shards_of_rank * shard, units)
    busy = min(threads, shards_of_rank)
    bandwidth = min(busy * node.core_bandwidth, node.bandwidth / ranks_a_node)
    counted = traffic(kind, units, ranks)
    of_a_unit, even = INPUTS * ROWS * PRODUCTS[kind] * constants.seconds[kind], units / (ranks * threads)
    return {"compute": even * of_a_unit,
            "uneven": (min(units_of_thread, units) - even) * of_a_unit,
            "memory": units_of_rank * INPUTS * MOVED[kind] / bandwidth,
            "fold": 3 * max(counted.added) / bandwidth,
            "fixed": constants.fixed[kind] / threads,
            "latency": (max(counted.meetings) - 1 + math.ceil(math.log2(ranks))) * link.latency,
            "bytes": max(counted.received) / link.bandwidth}


def memory_of_rank(kind, units, ranks, threads):
    """Bytes that a rank other than the first touches, as an estimate."""
    shards = -(-units // SHARD)
    own = max(n for _, n in cut(shards, ranks)) * SHARD
    vectors = sum(length * size for length, size in sums(kind))
    return (TRAIN_ROWS * INPUTS * FLOAT                      # prepared data
            + 5 * FLOAT * own * INPUTS * WEIGHTS[kind]       # weights, two moments, the best and the last ones
            + 2 * FLOAT * own * ROWS                         # activations and their gradients
            + own // SHARD * vectors                         # what is summed
            + max(traffic(kind, units, ranks).received)      # and what others have added up
            + threads * 2 * FLOAT * SHARD * INPUTS           # a shard's gradients
            + units * (UNIT_FIGURES + CLASSES) * FLOAT)      # the table of units


# --- fitted ----------------------------------------------------------------------------------------

def fit_line(points):
    """a and b of y = a + b·x with the least squares of relative errors."""
    weighted = [(x, y, 1 / (y * y)) for x, y in points]
    total = sum(w for _, _, w in weighted)
    mean_x, mean_y = (sum(w * point[i] for *point, w in weighted) / total for i in (0, 1))
    slope = (sum(w * (x - mean_x) * (y - mean_y) for x, y, w in weighted)
             / sum(w * (x - mean_x) ** 2 for x, _, w in weighted))
    return mean_y - slope * mean_x, slope


def fit(points, node):
    """The constants that steps of one process with one thread give: kind → [(units, seconds)], two widths at least."""
    seconds, fixed = {}, {}
    for kind, measured in points.items():
        start, slope = fit_line(measured)
        fixed[kind] = max(start, 0)
        moved = MOVED[kind] / node.core_bandwidth
        seconds[kind] = (slope / INPUTS - moved) / ROWS / PRODUCTS[kind]
    return Constants(seconds, fixed)
