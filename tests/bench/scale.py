#!/usr/bin/env python3
"""How one wide layer scales over ranks, and the service over experiments that wait: measured here, and computed for
clusters that are not here. docs/scale.md explains the tables.

usage: scale.py [--build DIR] [--write FILE] [--stored | SECTION...]

  links    a meeting of two ranks and an all-reduce of gradients, in shared memory and between two network namespaces
  cores    what one core and the memory do: products, bandwidth, barriers
  traffic  bytes and meetings of a step against width and ranks, and on the wire
  step     time of a step against width and ranks
  queue    100,000 experiments that wait

Figures go to BUILD/bench/scale.json; sections that are left out keep those of the run before (--stored: all of them). Then
the model is fitted, compared with what it was not fitted to, and asked about larger machines. --write puts each table
between its two marks in FILE, <!-- NAME --> and <!-- /NAME -->. About six minutes on two quiet cores.
"""
import argparse
import contextlib
import datetime
import json
import math
import os
import random
import re
import statistics
import struct
import tempfile
import time

import crowd
import scale_model as model
from links import Loopback, Machine, Namespaces, Refused, why_no_namespaces
from tools import ROOT, Core, fail, heading, median, number, say, take_turns
from tools import table as print_table

KINDS = ("ovr_encoder", "mlp", "autoencoder")
NAMES = {"ovr_encoder": "encoder", "mlp": "mlp", "autoencoder": "autoencoder"}
WIDTHS = {"ovr_encoder": (512, 1024, 2048, 4096, 8192, 16384), "mlp": (1024, 2048, 4096, 8192),
          "autoencoder": (1024, 2048, 4096, 8192)}
FITTED = (1024, 2048, 4096)  # widths of one process that the model is fitted to; all else is predicted
COUNTED_UNITS, COUNTED_RANKS = 8192, (2, 3, 4, 8, 16)
WIRE_UNITS = 2048
MESSAGES = (1048, 12336, 65536, 1 << 20)
EPOCHS = 3
TABLES = {}  # name → columns, rows


# --- tables ----------------------------------------------------------------------------------------

def table(name, columns, rows):
    """Shows it, and keeps it for --write."""
    rows = [tuple(row) for row in rows]
    say()
    print_table(columns, rows)
    TABLES[name] = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns),
                    *("| " + " | ".join(map(number, row)) + " |" for row in rows)]


def write_tables(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for name, lines in TABLES.items():
        body = "\n".join(lines)
        text, found = re.subn(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
                              lambda match, body=body: f"{match[1]}\n{body}\n\n{match[2]}", text, flags=re.S)
        if found != 1:
            fail(f"{path} should have <!-- {name} --> and <!-- /{name} --> once, and has them {found} times")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def size(bytes_):
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000 or unit == "GB":
            return f"{bytes_:.3g} {unit}" if unit != "B" else f"{bytes_:.0f} B"
        bytes_ /= 1000


def span_of_time(seconds):
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


# --- the worker ------------------------------------------------------------------------------------

def write_rows(path, rows, seed):
    """A split of made-up images, as core/rowfile.h describes it."""
    made = random.Random(seed)
    labels = struct.pack(f"<{rows}H", *(i % model.CLASSES for i in range(rows)))
    with open(path, "wb") as file:
        for part in (b"ovrdrows".ljust(64, b"\0"), made.randbytes(rows * model.INPUTS), labels):
            file.write(part + bytes(-len(part) % 8))
        file.write(struct.pack("<11Q", rows, model.INPUTS, 1, model.CLASSES, 1, 0, 0, 0, 0, 0, 0) + b"ovrdrows")


def spec(kind, units, steps, epochs):
    """At this rate the weights stay as they are, and nothing is fitted to the training rows, so that an evaluation sends
    the same after any number of steps."""
    return {"name": "scale", "dataset": {"name": "made-up", "train_limit": steps * model.ROWS},
            "preprocess": [{"contrast": {}}], "model": {"kind": kind, "hidden": [units]},
            "loss": {"ovr": {"lambda": 1e-5, "form": "cosine"}}, "optimizer": {"name": "adam", "learning_rate": 1e-30},
            "training": {"epochs": epochs, "batch_size": model.ROWS, "seed": 1, "protocol": "published"}, "probe": None}


class Worker:
    """ovr-worker on made-up data."""
    MOST_STEPS = 128

    def __init__(self, build, scratch):
        self.path, self.scratch, self.runs = os.path.abspath(os.path.join(build, "ovr-worker")), scratch, 0
        self.splits = [os.path.join(scratch, split) for split in ("train", "test")]
        for seed, (path, rows) in enumerate(zip(self.splits, (self.MOST_STEPS * model.ROWS, model.ROWS))):
            write_rows(path, rows, seed)

    def __call__(self, link, ranks, threads, kind, units, steps, epochs):
        """Steps, meetings, bytes that each rank sent, seconds of each epoch; and what left each node."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            path = os.path.join(directory, "spec.json")
            with open(path, "w", encoding="ascii") as file:
                json.dump(spec(kind, units, steps, epochs), file)
            before = link.sent()
            said = link(ranks, self.path, "-t", str(threads), path, os.path.join(directory, "out"), *self.splits)
            after = link.sent()
        lines = sorted(tuple(map(int, found)) for found in re.findall(
            r"^rank (\d+) steps (\d+) meetings (\d+) bytes (\d+)$", said, re.M))
        return {"steps": lines[0][1], "meetings": [line[2] for line in lines], "sent": [line[3] for line in lines],
                "epochs": [float(seconds) for seconds in re.findall(r"^epoch .* seconds ([0-9.]+)$", said, re.M)],
                "wire": [b - a for a, b in zip(before, after)]}

    def per_step(self, link, ranks, threads, kind, units, few, many, epochs=1):
        """The difference of two runs that differ in their steps alone. Time: of the fastest epochs."""
        a, b = (self(link, ranks, threads, kind, units, steps, epochs) for steps in (few, many))
        steps = b["steps"] - a["steps"]
        return {"kind": kind, "units": units, "ranks": ranks, "threads": threads, "link": link.name,
                "meetings": [(y - x) / steps for x, y in zip(a["meetings"], b["meetings"])],
                "sent": [(y - x) / steps for x, y in zip(a["sent"], b["sent"])],
                "wire": [(y - x) / steps for x, y in zip(a["wire"], b["wire"])],
                "seconds": (min(b["epochs"]) - min(a["epochs"])) / (many - few)}


# --- measuring -------------------------------------------------------------------------------------

class Scale:
    def __init__(self, build, scratch):
        self.build, self.worker, self.core = build, Worker(build, scratch), Core(build)
        self.meet = os.path.abspath(os.path.join(build, "tests", "bench", "meet"))

    @contextlib.contextmanager
    def nodes(self):
        """Two nodes as near to real ones as the rights allow."""
        why = why_no_namespaces()
        if why:
            say(f"  instead of two network namespaces this machine's loopback: {why}")
            yield Loopback()
            return
        with Namespaces() as nodes:
            yield nodes

    def meetings(self, link, ranks, what, sizes):
        return [json.loads(line) for line in link(ranks, self.meet, what, *map(str, sizes)).splitlines()]


def measure_links(scale):
    figures = []
    with scale.nodes() as nodes:
        for link in (Machine(), nodes):
            swaps = take_turns(3, {"swap": lambda link=link: scale.meetings(link, 2, "swap", MESSAGES)})["swap"]
            reduces = scale.meetings(link, 2, "allreduce", [model.FLOAT * model.parameters("ovr_encoder", WIRE_UNITS)])
            figures.append({"link": link.name, "allreduce": reduces,
                            "agree": scale.meetings(link, 2, "agree", [model.STOP])[0]["us"],
                            "swap": {n: median([turn[i]["us"] for turn in swaps]) for i, n in enumerate(MESSAGES)}})
    return figures


def measure_cores(scale):
    shape = {"d": model.INPUTS, "k": 4096, "n": model.ROWS}
    turns = take_turns(3, {
        "step": lambda: scale.core("step", threads=1, rounds=3, steps=2, rate=0, **shape),
        "one": lambda: scale.core("optimizer", threads=1, d=shape["d"], k=shape["k"], rounds=5),
        "two": lambda: scale.core("optimizer", threads=2, d=shape["d"], k=shape["k"], rounds=5),
        "barrier": lambda: scale.core("barrier", threads=2, rounds=3)})
    middle = lambda name, field: median([turn[field] for turn in turns[name]])
    return {"gflops": middle("step", "gflops"), "step_by_products": middle("step", "ratio"),
            "bandwidth": {"1": 1e9 * middle("one", "gb_per_second"), "2": 1e9 * middle("two", "gb_per_second")},
            "barrier_us": middle("barrier", "us"), "machine": scale.core("machine")}


def measure_traffic(scale):
    machine, counted, wire = Machine(), [], []
    for kind in KINDS:
        for units in (1024, COUNTED_UNITS):
            counted.append(scale.worker.per_step(machine, 2, 1, kind, units, 1, 2))
        for ranks in COUNTED_RANKS[1:]:
            counted.append(scale.worker.per_step(machine, ranks, 1, kind, COUNTED_UNITS, 1, 2))
    with scale.nodes() as nodes:
        for kind in KINDS:
            wire.append(scale.worker.per_step(nodes, 2, 1, kind, WIRE_UNITS, 1, 41))
    return {"counted": counted, "wire": wire}


def steps_for(kind, units):
    """So many that an epoch takes some tenths of a second."""
    return max(4, min(60, (1 << 16) // units // (1 + (kind == "autoencoder"))))


def measure_step(scale):
    machine, figures = Machine(), []
    for kind in KINDS:
        for units in WIDTHS[kind]:
            steps = steps_for(kind, units)
            for ranks, threads in ((1, 1), (1, 2), (2, 1)):
                if ranks <= model.most_ranks(units) and (threads == 1 or units in (2048, 8192)):
                    figures.append(scale.worker.per_step(machine, ranks, threads, kind, units, 1, 1 + steps, EPOCHS))
    with scale.nodes() as nodes:
        for kind in KINDS:
            steps = steps_for(kind, WIRE_UNITS)
            figures.append(scale.worker.per_step(nodes, 2, 1, kind, WIRE_UNITS, 1, 1 + steps, EPOCHS))
    return figures


def measure_queue(scale):
    return crowd.run(scale.build)


SECTIONS = {"links": measure_links, "cores": measure_cores, "traffic": measure_traffic, "step": measure_step,
            "queue": measure_queue}


# --- showing what was measured ---------------------------------------------------------------------

def fitted_link(figures):
    """α and β of a line through the times of swaps."""
    a, b = model.fit_line([(int(n), us * 1e-6) for n, us in figures["swap"].items()])
    return model.Link(figures["link"], max(a, 0), 1 / b)


def show_links(links):
    heading("A meeting of two ranks, and an all-reduce of gradients")
    rows = []
    for f in links:
        link = fitted_link(f)
        rows.append((f["link"], f["agree"], *f["swap"].values(), 1e6 * link.latency, link.bandwidth * 1e-9,
                     f["allreduce"][0]["us"] * 1e-3))
    sizes, gradients = [size(int(n)) for n in links[0]["swap"]], size(links[0]["allreduce"][0]["bytes"])
    table("links", ("ranks reach each other by", "4 B from one, µs", *(f"{s} each, µs" for s in sizes), "α µs", "β GB/s",
                    f"all-reduce of {gradients}, ms"), rows)


def show_cores(cores, runs):
    heading("One core, and the memory")
    machine, bandwidth = cores["machine"], cores["bandwidth"]
    loads = ", ".join(f"{name} {run['load_before']:.1f}" for name, run in runs.items())
    table("cores", ("", "measured"), [
        ("when, and the load before each section", f"{runs['cores']['at'][:16]}Z; {loads}"),
        ("processor", f"{machine['processor']}, {machine['cores']} cores"),
        ("loops, OpenBLAS kernel", f"{machine['isa']}, {machine['blas_kernel']}"),
        (f"products of one core at 128 × 4096 × {model.INPUTS}, GFLOP/s", cores["gflops"]),
        ("the encoder's step by its two bare products", cores["step_by_products"]),
        ("weights and moments moved, one core, GB/s", bandwidth["1"] * 1e-9),
        ("two cores, GB/s", bandwidth["2"] * 1e-9),
        ("barrier of two threads, µs", cores["barrier_us"])])


def check_counts(figures):
    """What is counted has to be what the model says, to the byte: rank 0 also says whether to stop."""
    for f in figures:
        expected = model.traffic(f["kind"], f["units"], f["ranks"])
        if f["sent"] != expected.sent or f["meetings"] != expected.meetings:
            fail(f"{f['kind']}, {f['units']} units, {f['ranks']} ranks: sent {f['sent']} bytes in {f['meetings']} meetings "
                 f"a step; expected {expected.sent} in {expected.meetings}")


def show_traffic(figures):
    heading("Bytes of a step")
    check_counts(figures["counted"] + figures["wire"])
    rows = []
    for f in figures["counted"]:
        dense, most = model.data_parallel(f["kind"], f["units"], f["ranks"]), max(f["sent"])
        rows.append((NAMES[f["kind"]], f["units"], f["ranks"], f"{max(f['meetings']):.0f}", size(most), size(dense),
                     f"{dense / most:,.0f}"))
    table("traffic", ("model", "units", "ranks", "meetings", "a rank sends at most", "all-reduce of gradients",
                      "times ours"), rows)
    if not all(f["wire"] for f in figures["wire"]):
        say("  what is on the wire was not counted: that takes two network namespaces, see above")
        return
    rows = []
    for f in figures["wire"]:
        sent, wire = sum(f["sent"]), sum(f["wire"])
        rows.append((NAMES[f["kind"]], f["link"], size(sent), size(wire), f"{wire / sent:.3f}"))
    table("wire", ("model, 2 ranks, both directions together", "by", "we send", "on the wire", "by ours"), rows)


def show_step(figures):
    heading("Time of a step")
    rows, alone = [], {(f["kind"], f["units"]): f["seconds"] for f in figures if f["ranks"] * f["threads"] == 1}
    for f in figures:
        rows.append((NAMES[f["kind"]], f["units"], f["ranks"], f["threads"], f["link"] if f["ranks"] > 1 else "",
                     1e3 * f["seconds"], alone[f["kind"], f["units"]] / f["seconds"]))
    table("step", ("model", "units", "ranks", "threads", "by", "ms", "times faster than one"), rows)


# --- the model -------------------------------------------------------------------------------------

# 64 cores like the one measured here, memory as of a server with 12 channels.
CLUSTER_CORES, CLUSTER_BANDWIDTH = 64, 300e9
# Assumed, see docs/scale.md for where they come from.
NETWORKS = (model.Link("25 Gbit/s, TCP", 25e-6, 25e9 / 8), model.Link("100 Gbit/s, RDMA", 2e-6, 100e9 / 8))
UNITS, NODES = (10**4, 10**5, 10**6), (10, 100, 1000)


def fit(figures):
    bandwidth = figures["cores"]["bandwidth"]
    here = model.Node(2, bandwidth["1"], bandwidth["2"])
    points = {kind: [(f["units"], f["seconds"]) for f in figures["step"]
                     if f["kind"] == kind and f["ranks"] * f["threads"] == 1 and f["units"] in FITTED] for kind in KINDS}
    return here, model.fit(points, here)


def show_constants(here, constants):
    rows = []
    for kind in KINDS:
        of_memory = model.MOVED[kind] / here.core_bandwidth
        of_products = model.ROWS * model.PRODUCTS[kind] * constants.seconds[kind]
        rows.append((NAMES[kind], 2e-9 / constants.seconds[kind], 1e3 * constants.fixed[kind],
                     f"{100 * of_memory / (of_memory + of_products):.0f} %"))
    table("constants", ("fitted to one process of 1024, 2048 and 4096 units", "GFLOP/s of a core, all work in it",
                        "fixed, ms a step", "memory's part of the rest"), rows)


def predict(figure, here, constants, links):
    alone = model.Node(1, here.core_bandwidth, here.core_bandwidth)
    link = links[figure["link"]] if figure["ranks"] > 1 else model.Link("none", 0, math.inf)
    return sum(model.step(figure["kind"], figure["units"], figure["ranks"], figure["threads"], constants,
                          here if figure["ranks"] * figure["threads"] > 1 else alone, link,
                          ranks_a_node=figure["ranks"]).values())


def show_errors(figures, here, constants, links):
    rows, sizes = [], []
    for f in figures["step"]:
        if f["ranks"] * f["threads"] == 1 and f["units"] in FITTED:
            continue
        predicted = predict(f, here, constants, links)
        error = 100 * (predicted / f["seconds"] - 1)
        sizes.append(abs(error))
        rows.append((NAMES[f["kind"]], f["units"], f["ranks"], f["threads"], f["link"] if f["ranks"] > 1 else "",
                     1e3 * f["seconds"], 1e3 * predicted, f"{error:+.0f} %"))
    rows.append(("median of the errors' sizes, and the largest", *[""] * 6,
                 f"{statistics.median(sizes):.0f} %, {max(sizes):.0f} %"))
    table("errors", ("model", "units", "ranks", "threads", "by", "measured ms", "predicted ms", "error"), rows)


def largest(terms):
    return max(terms, key=terms.get)


def cluster(here):
    return model.Node(CLUSTER_CORES, here.core_bandwidth, CLUSTER_BANDWIDTH)


def useful(kind, units, constants, seconds, nodes):
    """Of the time of all cores, what goes into products."""
    work = units * model.INPUTS * model.ROWS * model.PRODUCTS[kind] * constants.seconds[kind]
    return work / (CLUSTER_CORES * nodes * seconds)


def cluster_row(here, constants, kind, units, nodes):
    ranks = min(nodes, model.most_ranks(units))
    cells = [NAMES[kind], f"{units:,}", nodes, ranks]
    for link in NETWORKS:
        terms = model.step(kind, units, ranks, CLUSTER_CORES, constants, cluster(here), link)
        seconds = sum(terms.values())
        cells += [1e3 * seconds, f"{100 * useful(kind, units, constants, seconds, nodes):.1f} %", largest(terms)]
    return (*cells, size(model.memory_of_rank(kind, units, ranks, CLUSTER_CORES)))


def show_clusters(here, constants):
    heading("Computed: clusters of 64-core nodes, one rank a node")
    columns = (f"{link.name}: {what}" for link in NETWORKS for what in ("ms", "useful", "most of it"))
    table("clusters", ("model", "units", "nodes", "ranks", *columns, "memory of a rank"),
          [cluster_row(here, constants, kind, units, nodes) for kind in KINDS for units in UNITS for nodes in NODES])


def powers_of_two(most):
    return [1 << i for i in range(most.bit_length())]


def fastest(here, constants, kind, units, link, shard):
    """Of the powers of two, the number of ranks beyond which a step does not get faster."""
    times = {ranks: model.step(kind, units, ranks, CLUSTER_CORES, constants, cluster(here), link, shard=shard)
             for ranks in powers_of_two(model.most_ranks(units))}
    best = min(times, key=lambda ranks: sum(times[ranks].values()))
    return f"{best}: {span_of_time(sum(times[best].values()))}, {largest(times[best])}"


def show_limits(here, constants):
    """Where more nodes don't help any more, and what would move that."""
    table("limits", ("model", "units", "network", "as it is", "shards of 32"),
          [(NAMES[kind], f"{units:,}", link.name, *(fastest(here, constants, kind, units, link, shard) for shard in (model.SHARD, 32)))
           for kind in ("ovr_encoder", "autoencoder") for units in UNITS for link in NETWORKS])


def show_rivals(here, constants):
    """Of a step at 100,000 units the time on the network alone, beside a data-parallel trainer's."""
    rows = []
    for kind in KINDS:
        for ranks in (2, 16, 128):
            cells = [NAMES[kind], ranks]
            for link in NETWORKS:
                terms = model.step(kind, 10**5, ranks, CLUSTER_CORES, constants, cluster(here), link)
                rounds = 2 * (ranks - 1).bit_length()
                dense = rounds * link.latency + model.data_parallel(kind, 10**5, ranks) / link.bandwidth
                cells += [span_of_time(terms["latency"] + terms["bytes"]), span_of_time(dense)]
            rows.append(cells)
    columns = (f"{link.name}: {who}" for link in NETWORKS for who in ("ours", "all-reduce of gradients"))
    table("rivals", ("model, 100,000 units", "ranks", *columns), rows)


def show_model(figures):
    heading("The model")
    here, constants = fit(figures)
    links = {f["link"]: fitted_link(f) for f in figures["links"]}
    show_constants(here, constants)
    show_errors(figures, here, constants, links)
    show_clusters(here, constants)
    show_limits(here, constants)
    show_rivals(here, constants)


# --- all of it -------------------------------------------------------------------------------------

def show_queue(figures):
    heading("Experiments that wait")
    table("queue", *crowd.rows(figures))


def show(figures):
    """All that was measured, now or before."""
    for name, show_section in (("links", show_links), ("traffic", show_traffic), ("step", show_step), ("queue", show_queue)):
        if name in figures:
            show_section(figures[name])
    if "cores" in figures:
        show_cores(figures["cores"], figures["runs"])
    if all(name in figures for name in ("links", "cores", "step")):
        show_model(figures)




def read_options():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--build", default=os.path.join(ROOT, "build"), help="where the programs are")
    words.add_argument("--write", metavar="FILE", help="a document whose tables are to be filled in")
    words.add_argument("--stored", action="store_true", help="measure nothing, show the figures of the run before")
    words.add_argument("section", nargs="*", help=f"measure only these: {', '.join(SECTIONS)}")
    options = words.parse_args()
    unknown = set(options.section) - set(SECTIONS)
    if unknown:
        fail(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return options


def read_figures(path):
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        return json.load(file)
    return {}


def measure(options, path):
    if options.stored:
        return read_figures(path)
    if not os.path.exists(os.path.join(options.build, "ovr-worker")):
        fail("needs ovr-worker, which is built where OpenMPI is: scripts/deps.sh mpi")
    figures = read_figures(path) if options.section else {}
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as scratch:
        scale = Scale(options.build, scratch)
        for name in options.section or SECTIONS:
            begun, load = time.monotonic(), os.getloadavg()[0]
            say(f"measuring: {name} (load {load:.2f} before)")
            figures[name] = SECTIONS[name](scale)
            figures.setdefault("runs", {})[name] = {
                "seconds": time.monotonic() - begun, "load_before": load,
                "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(figures, file, indent=1)
    with open(path, encoding="utf-8") as file:
        return json.load(file)  # as a run that reads the figures of the one before


def main():
    options = read_options()
    path = os.path.join(options.build, "bench", "scale.json")
    try:
        figures = measure(options, path)
    except Refused as refused:
        fail(str(refused))
    show(figures)
    if options.write:
        write_tables(options.write)
    seconds = sum(run["seconds"] for run in figures.get("runs", {}).values())
    say(f"\n{seconds:.0f} s. All figures: {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
