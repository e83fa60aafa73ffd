#!/usr/bin/env python3
"""Runs the benchmarks, prints tables for a person, and writes BUILD/bench/<name>.json.

usage: run.py [--full] [--build DIR] [SECTION...]

Everything that is compared takes turns (A B A B), since the machine's speed drifts; the tables show
medians, and the median of the pairwise ratios. Without python3-torch there is no comparison, without
CIFAR-10 no whole experiment. --full runs the whole reference experiment and the probe on 50,000
samples: three quarters of an hour, most of it PyTorch.
"""
import argparse
import datetime
import itertools
import json
import os
import re
import tempfile
import time

import pool
import service
import watch
import whole
from tools import ROOT, Core, Torch, Way, apart, fail, find_cifar10, has_torch, heading, median, of, ratio, say, table, take_turns

REFERENCE = {"d": 781, "k": 8192, "n": 128}
SHAPES = [(781, 1024, 128), (781, 4096, 128), (781, 16384, 128), (781, 8192, 32), (781, 8192, 512), (256, 8192, 128),
          (3072, 8192, 128)]
SHARES = (1.0, 0.8, 0.6, 0.5, 0.27, 0.1, 0.05, 0.01)
# PyTorch's temporaries are larger than what malloc keeps: it gives them back to the system and gets them anew, page by
# page, at every step. These make it keep them.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
KERNELS = {"baseline": "Prescott", "avx2": "Haswell", "avx512": "SkylakeX"}  # OpenBLAS's names


class Bench:
    """What the sections share: the sides, the inputs, and what is to be judged at the end."""

    def __init__(self, build, full, scratch):
        self.build, self.full, self.scratch = build, full, scratch
        self.core = Core(build)
        self.machine = self.core("machine")
        self.cores = self.machine["cores"]
        # Ways to run PyTorch: with our BLAS kernel and as many threads as we have, with whatever makes it fastest
        # here beside that, and with nothing set.
        self.plain = self.tuned = self.shipped = None
        self.cifar10 = find_cifar10(scratch)
        self.judged = []

    def judge(self, what, target, measured, met):
        self.judged.append({"what": what, "target": target, "measured": measured, "met": met})

    def close(self):
        for process in {way.process for way in (self.plain, self.tuned, self.shipped) if way}:
            process.close()

    def shape(self, d, k, n, **options):
        return {"d": d, "k": k, "n": n, "steps": 4 if k * n * d < 2e9 else 2, "rounds": 5, "rate": 5e-4, **options}


# --- PyTorch's settings -----------------------------------------------------------------------

def start_torch(bench):
    """Sets bench.plain, tuned and shipped."""
    heading("PyTorch")
    if not has_torch():
        say("  PyTorch is not here, so nothing is compared with it: apt-get install python3-torch python3-numpy")
        return {}
    shape = bench.shape(**REFERENCE)
    bench.core("step", data=bench.scratch, **{**shape, "rounds": 1})
    kernel = {"OPENBLAS_CORETYPE": bench.machine["blas_kernel"]}
    sides = {"threads that spin": Torch("spinning", kernel),
             "threads that sleep": Torch("sleeping", {**kernel, "OMP_WAIT_POLICY": "PASSIVE"}),
             "malloc keeps memory, threads that sleep": Torch("keeping", {**kernel, **KEEP_MEMORY,
                                                                         "OMP_WAIT_POLICY": "PASSIVE"})}
    tries = {}
    for name, threads, foreach in itertools.product(sides, {1, bench.cores}, (False, True)):
        side = sides[name]
        label = f"{name}, {threads} of them, Adam with foreach={foreach}"
        tries[label] = (side, {"threads": threads, "foreach": foreach, "data": bench.scratch})
    timed = take_turns(3, {label: (lambda side=side, options=options: side("step", **{**shape, **options, "rounds": 2}))
                           for label, (side, options) in tries.items()})
    times = {label: median(of(timed, label, "step_ms")) for label in tries}
    best = min(times, key=times.get)
    side, options = tries[best]
    bench.tuned = Way(side, **options)
    bench.plain = Way(sides["threads that spin"], threads=bench.cores, foreach=False, data=bench.scratch)
    for side in sides.values():
        if side not in (bench.tuned.process, bench.plain.process):
            side.close()
    bench.shipped = Way(Torch("shipped", {}), foreach=False, data=bench.scratch)
    version = bench.shipped("start")
    table(("a step of the reference network with", "ms"), sorted(times.items(), key=lambda item: item[1]))
    say(f"  PyTorch {version['version']}, all with the kernel {bench.machine['blas_kernel']}. Below, PyTorch is it with {bench.cores} "
        "threads and nothing else set (they spin), `tuned` is the first of these.")
    say(f"  `As shipped` has no kernel set either: {version['threads']} thread(s) of its own, and OpenBLAS chose "
        f"{version['blas_kernel']}.")
    return {"version": version["version"], "settings": times, "tuned": best, "shipped": version}


# --- the step --------------------------------------------------------------------------------------

def step_turns(bench, rounds, shape, with_shipped=False):
    sides = {"ours": lambda: bench.core("step", data=bench.scratch if bench.tuned else "", **shape)}
    if bench.plain:
        sides["plain"] = lambda: bench.plain("step", **shape)
        sides["tuned"] = lambda: bench.tuned("step", **shape)
    if bench.shipped and with_shipped:
        sides["shipped"] = lambda: bench.shipped("step", **shape)
    return take_turns(rounds, sides)


def step_figures(results):
    ours = of(results, "ours", "step_ms")
    figures = {"step_ms": median(ours), "fastest_ms": min(ours), "slowest_ms": max(ours),
               "products_ms": median(of(results, "ours", "products_ms")), "of_products": median(of(results, "ours", "ratio")),
               "gflops_of_products": median(of(results, "ours", "gflops")), "active": results["ours"][0]["active"]}
    for side in ("plain", "tuned", "shipped"):
        if side in results:
            figures[f"{side}_ms"] = median(of(results, side, "step_ms"))
            figures[f"{side}_by_ours"] = ratio(results, side, "step_ms")
            figures["loss_apart"] = max(figures.get("loss_apart", 0), apart(results["ours"][0]["loss"],
                                                                          results[side][0]["loss"]))
    return figures


STEP_COLUMNS = ("D, K, N", "active", "step ms", "(range)", "two products", "step/products", "PyTorch ms", "× ours",
                "tuned ms", "× ours", "loss apart")


def step_row(name, f):
    return (name, f"{f['active']:.2f}", f["step_ms"], f"{f['fastest_ms']:.3g}–{f['slowest_ms']:.3g}", f["products_ms"],
            f["of_products"], f.get("plain_ms"), f.get("plain_by_ours"), f.get("tuned_ms"), f.get("tuned_by_ours"),
            f.get("loss_apart"))


def section_step(bench):
    """The reference network's step, dense and sparse."""
    heading("Step of the reference network: gather, forward, loss, gradient, Adam (D 781, K 8192, batch 128)")
    dense = step_figures(step_turns(bench, 5, bench.shape(**REFERENCE), with_shipped=True))
    # At a small rate the biases, and with them the share of active units, stay where they are.
    sparse = step_figures(step_turns(bench, 4, bench.shape(**REFERENCE, share=0.05, rate=1e-6)))
    table(STEP_COLUMNS, [step_row("dense code", dense), step_row("95 % zeros", sparse)])
    if "shipped_ms" in dense:
        say(f"  PyTorch as shipped, dense code: {dense['shipped_ms']:.3g} ms, {dense['shipped_by_ours']:.3g} × ours")
        judge = bench.judge
        judge("step, dense code: PyTorch by ours", ">= 4", dense["plain_by_ours"], dense["plain_by_ours"] >= 4)
        judge("step, dense code: PyTorch as shipped by ours", ">= 7", dense["shipped_by_ours"], dense["shipped_by_ours"] >= 7)
    bench.judge("step, dense code: ours by its two bare products", "<= 1.25", dense["of_products"],
                dense["of_products"] <= 1.25)
    bench.judge("step, 95 % zeros: ours by the two dense products", "< 1", sparse["of_products"], sparse["of_products"] < 1)
    return {"dense": dense, "sparse": sparse}


def section_shapes(bench):
    """Steps of other sizes."""
    heading("Step at other sizes")
    figures = {}
    for shape in SHAPES:
        figures[" ".join(map(str, shape))] = step_figures(step_turns(bench, 2, bench.shape(*shape)))
    table(STEP_COLUMNS, [step_row(name, f) for name, f in figures.items()])
    return figures


def section_threads(bench):
    """Threads of one step, and networks at once."""
    heading("Threads, and networks at once")
    counts = sorted({1, 2, bench.cores // 2, bench.cores} - {0})
    results = take_turns(3, {n: (lambda n=n: bench.core("step", threads=n, **bench.shape(**REFERENCE))) for n in counts})
    steps = {n: step_figures({"ours": results[n]}) for n in counts}
    table(("threads of one network", "step ms", "two products", "step/products", "× faster than 1"),
          [(str(n), f["step_ms"], f["products_ms"], f["of_products"], steps[1]["step_ms"] / f["step_ms"])
           for n, f in steps.items()])
    ways = [(jobs, threads) for jobs, threads in ((1, 1), (1, bench.cores), (bench.cores, 1), (2 * bench.cores, 1))]
    nets = {"781 → 8192": {"d": 781, "k": 8192, "steps": 4}, "3 → 200": {"d": 3, "k": 200, "steps": 500}}
    jobs, rows = {}, []
    for name, net in nets.items():
        results = take_turns(3, {way: (lambda way=way, net=net: bench.core("jobs", jobs=way[0], threads=way[1], rounds=3, **net))
                                 for way in ways})
        for way in ways:
            each = median(of(results, way, "steps_per_second"))
            jobs[f"{name}, {way[0]} × {way[1]}"] = each
            rows.append((name, way[0], way[1], each))
    say()
    table(("network", "at once", "threads each", "steps/s in all"), rows)
    return {"threads": steps, "jobs_steps_per_second": jobs}


# --- parts of the step -----------------------------------------------------------------------------

def section_share(bench):
    """Step time by the share of active units, and where the two ways to the gradient cross."""
    heading("By the share of active units (reference network)")
    rows, figures = [], []
    for share in SHARES:
        sides = {"step": lambda share=share: bench.core("step", share=share, **bench.shape(**REFERENCE, rate=0, rounds=3)),
                 "gradient": lambda share=share: bench.core("gradient", share=share, **REFERENCE)}
        results = take_turns(2, sides)
        figure = {"share": share, "step_ms": median(of(results, "step", "step_ms")),
                  "of_products": median(of(results, "step", "ratio")),
                  "gradient_active_ms": median(of(results, "gradient", "active_ms")),
                  "gradient_dense_ms": median(of(results, "gradient", "dense_ms")),
                  "gradient_ratio": median(of(results, "gradient", "ratio"))}
        figures.append(figure)
        rows.append(tuple(figure.values()))
    table(("active", "step ms", "step/products", "dW by active units ms", "dW by sgemm ms", "ratio"), rows)
    crossing = find_crossing([(f["share"], f["gradient_ratio"]) for f in figures])
    used = most_active()
    say(f"  Both ways to dW take equal time at a share of {crossing:.2f}" if crossing else
        "  The two ways to dW do not cross between these shares")
    if used:
        say(f"  core/packed.c changes over at {used} (MOST_ACTIVE)")
    return {"shares": figures, "crossing": crossing, "most_active": used}


def find_crossing(points):
    """Where the ratio passes 1, on a line between the two neighbouring points."""
    points = sorted(points)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if y0 < 1 <= y1:
            return x0 + (x1 - x0) * (1 - y0) / (y1 - y0)
    return None


def most_active():
    with open(os.path.join(ROOT, "core", "packed.c"), encoding="utf-8") as source:
        found = re.search(r"MOST_ACTIVE = ([0-9.]+)", source.read())
    return float(found[1]) if found else None


def section_parts(bench):
    """A barrier, and the optimiser's bandwidth."""
    heading("Barriers and the optimiser")
    members = sorted({1, 2, bench.cores, 2 * bench.cores})
    results = take_turns(3, {n: (lambda n=n: bench.core("barrier", threads=n)) for n in members})
    barrier = {n: median(of(results, n, "us")) for n in members}
    table(("members", "µs a barrier", ""), [(str(n), us, f"on {bench.cores} cores" if n > bench.cores else "")
                                           for n, us in barrier.items()])
    size = {"d": REFERENCE["d"], "k": REFERENCE["k"], "rounds": 20}
    sides = {"ours": lambda: bench.core("optimizer", **size)}
    if bench.plain:
        sides["plain"] = lambda: bench.plain("optimizer", **size)
    results = take_turns(3, sides)
    adam = {"ms": median(of(results, "ours", "ms")), "gb_per_second": median(of(results, "ours", "gb_per_second"))}
    if bench.plain:
        adam.update(plain_ms=median(of(results, "plain", "ms")), plain_by_ours=ratio(results, "plain", "ms"))
    say()
    table(("Adam over 6.4 million weights", "ms", "GB/s", "PyTorch ms", "× ours"),
          [("one fused pass", adam["ms"], adam["gb_per_second"], adam.get("plain_ms"), adam.get("plain_by_ours"))])
    return {"barrier_us": barrier, "adam": adam}


def section_isa(bench):
    """Instruction sets of our loops, each with OpenBLAS's kernel for it, and with the best kernel."""
    heading("By instruction set and OpenBLAS kernel (reference network)")
    best = bench.machine["blas_kernel"]
    isas = bench.machine["isas"]
    ways = [(isa, best) for isa in isas] + [(bench.machine["isa"], KERNELS[isa]) for isa in isas if KERNELS[isa] != best]
    results = take_turns(3, {way: (lambda way=way: bench.core("step", blas_kernel=way[1], isa=way[0], **bench.shape(**REFERENCE, rounds=3)))
                             for way in ways})
    figures = {f"{way[0]} {way[1]}": step_figures({"ours": results[way]}) for way in ways}
    table(("our loops", "OpenBLAS kernel", "step ms", "two products ms", "GFLOP/s", "step/products"),
          [(*way, f["step_ms"], f["products_ms"], f["gflops_of_products"], f["of_products"])
           for way, f in zip(ways, figures.values())])
    return figures


# --- probe, PCA ------------------------------------------------------------------------------------

def best_probe_threads(bench, options):
    """PyTorch's small steps may well be faster on one thread."""
    results = take_turns(2, {n: (lambda n=n: bench.tuned("probe", **{**options, "threads": n})) for n in {1, bench.cores}})
    return min(results, key=lambda n: min(of(results, n, "epoch_seconds")))


def section_probe(bench):
    """An epoch of the probe."""
    samples, rounds = (50000, 3) if bench.full else (10000, 5)
    heading(f"Probe: an epoch of {samples:,} × 8192, batch 32, with the evaluation of {samples // 5:,}")
    figures, rows = {}, []
    for share in (0.27, 0.05):
        options = {"k": 8192, "samples": samples, "share": share, "epochs": 2}
        sides = {"ours": lambda options=options: bench.core("probe", data=bench.scratch if bench.plain else "", **options)}
        if bench.plain:
            bench.core("probe", data=bench.scratch, **options)
            threads = best_probe_threads(bench, options)
            sides["plain"] = lambda options=options: bench.plain("probe", **options)
            sides["tuned"] = lambda options=options, threads=threads: bench.tuned("probe", **{**options, "threads": threads})
        results = take_turns(rounds, sides)
        f = {"epoch_seconds": median(of(results, "ours", "epoch_seconds")), "accuracy": results["ours"][0]["accuracy"]}
        if bench.plain:
            for side in ("plain", "tuned"):
                f[f"{side}_seconds"] = median(of(results, side, "epoch_seconds"))
                f[f"{side}_by_ours"] = ratio(results, side, "epoch_seconds")
            f.update(tuned_threads=threads, loss_apart=apart(results["ours"][0]["loss"], results["tuned"][0]["loss"]))
            bench.judge(f"probe, {share:.0%} of the code active: PyTorch by ours", ">= 10", f["plain_by_ours"],
                        f["plain_by_ours"] >= 10)
        figures[f"{share}"] = f
        rows.append((f"{share:.0%} active", f["epoch_seconds"], f.get("plain_seconds"), f.get("plain_by_ours"),
                     f.get("tuned_seconds"), f.get("tuned_by_ours"), f.get("tuned_threads"), f.get("loss_apart")))
    table(("code", "seconds", "PyTorch s", "× ours", "tuned s", "× ours", "its threads", "loss apart"), rows)
    return figures


def section_pca(bench):
    """Standardise, covariance, eigenvectors, projection."""
    samples = 50000
    heading(f"Standardise and PCA: {samples:,} × 3072 onto 781 axes, fit and projection")
    options = {"samples": samples, "components": 781, "cifar10": bench.cifar10[0] if bench.cifar10 else ""}
    if not bench.cifar10:
        say("  without CIFAR-10, on made-up bytes of its shape")
    sides = {"ours": lambda: bench.core("pca", data=bench.scratch if bench.tuned else "", **options)}
    if bench.tuned:
        sides["tuned"] = lambda: bench.tuned("pca", **{**options, "threads": bench.cores})
    results = take_turns(3 if bench.full else 1, sides)
    f = {"seconds": median(of(results, "ours", "seconds")), "fit_seconds": median(of(results, "ours", "fit_seconds"))}
    if bench.tuned:
        f.update(tuned_seconds=median(of(results, "tuned", "seconds")), tuned_by_ours=ratio(results, "tuned", "seconds"),
                 variance_apart=apart(results["ours"][0]["kept_variance"], results["tuned"][0]["kept_variance"]))
    table(("", "seconds", "of it the fit", "PyTorch seconds", "× ours", "variance apart"),
          [("covariance float64 (PyTorch: float32), eigenvectors float64", f["seconds"], f["fit_seconds"],
            f.get("tuned_seconds"), f.get("tuned_by_ours"), f.get("variance_apart"))])
    return f


# --- the whole experiment --------------------------------------------------------------------------

def torch_whole(spec, train, test):
    """The reference spec as the command `whole` of torch_bench.py wants it."""
    training, data, probe = spec["training"], spec["dataset"], spec["probe"]
    return {"train": train, "test": test, "train_limit": data["train_limit"], "test_limit": data["test_limit"],
            "components": spec["preprocess"][1]["pca"]["components"], "units": spec["model"]["hidden"][0],
            "init": spec["model"]["init"]["normal"], "lambda": spec["loss"]["ovr"]["lambda"],
            "rate": spec["optimizer"]["learning_rate"], "epochs": training["epochs"], "batch_size": training["batch_size"],
            "seed": training["seed"], "probe_epochs": probe["epochs"]}


def section_whole(bench):
    """From the upload to the probe's result."""
    with open(os.path.join(ROOT, "examples", "reference.json"), encoding="utf-8") as file:
        spec = json.load(file)
    if not bench.full:
        spec["training"]["epochs"], spec["probe"]["epochs"] = 2, 5
        spec["dataset"].update(train_limit=10000, test_limit=2000)
    heading("The whole reference experiment, from upload to probe result" if bench.full else
            "A short reference experiment (10,000 samples, 2 epochs, 5 of the probe), from upload to probe result")
    if not bench.cifar10:
        say("  left out: CIFAR-10 is not here (set OVRD_CIFAR10 to its directory)")
        return {}
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as directory:
        ours = whole.run(os.path.join(bench.build, "ovrd"), directory, spec, *bench.cifar10)
    phases = ("uploading", "preparing", "training", "probing", "seconds")
    figures, rows = {"ours": ours}, [("ours, over HTTP", *(ours[phase] for phase in phases), ours["result"]["accuracy"])]
    ways = {"PyTorch": (bench.plain, bench.cores)} if bench.plain else {}
    if ways and not bench.full:  # where it costs seconds, not ten minutes
        ways["PyTorch, tuned"] = (bench.tuned, 1)  # its probe's small steps are faster on one thread
    for name, (way, probe_threads) in ways.items():
        theirs = way("whole", **torch_whole(spec, *bench.cifar10), probe_threads=probe_threads)
        figures[name] = theirs
        rows.append((name, None, *(theirs[phase] for phase in phases[1:]), theirs["accuracy"]))
        rows.append(("× ours", None, *(theirs[phase] / ours[phase] for phase in phases[1:]), None))
    if bench.full and bench.plain:
        by_ours = figures["PyTorch"]["seconds"] / ours["seconds"]
        bench.judge("whole reference experiment: PyTorch by ours", ">= 6", by_ours, by_ours >= 6)
    table(("seconds", "upload", "prepare", "train", "probe", "all", "accuracy"), rows)
    return figures


# --- the pool --------------------------------------------------------------------------------------

def section_pool(bench):
    """Many small jobs through the daemon."""
    heading("Many small experiments through the daemon")
    figures = pool.run(os.path.join(bench.build, "ovrd"), not bench.full)
    pool.show(figures)
    for name, flood in figures["flood"].items():
        busy = flood["busy_of_what_was_free"]
        bench.judge(f"sphere jobs of {name}: cores busy (of what was free)", ">= 0.90", busy, busy >= 0.9)
    late = figures["idle"]["post_to_started_ms"]["p99"]
    bench.judge("submit to start with a free core, p99 ms", "< 10", late, late < 10)
    return figures


def section_watch(bench):
    heading("Watchers")
    figures = watch.run(os.path.join(bench.build, "ovrd"), not bench.full)
    watch.show(figures)
    bench.judge("200 watchers: processor time they add to training", "< 2 %", f"{figures['cost']:.1%}",
                figures["cost"] < 0.02)
    late = figures["latency_ms"]["p99"]
    bench.judge("a change reaches 200 watchers, p99 ms", "< 10", late, late < 10)
    return figures


def section_service(bench):
    """The API with a full database."""
    heading("The API")
    figures = service.run(os.path.join(bench.build, "ovrd"), not bench.full)
    service.show(figures)
    if "show" in figures:
        for what, name, target in (("GET of one of 10,000 experiments", "show", 20000), ("durable submits", "submit", 2000)):
            best = max(f["per_second"] for f in figures[name].values() if not f["refused"])
            bench.judge(f"{what}, a second", f">= {target:,}", best, best >= target)
    late = service.slowest_page(figures)
    bench.judge("the slowest page of a list, p99 ms", "< 5", late, late < 5)
    return figures


SECTIONS = {"step": section_step, "shapes": section_shapes, "threads": section_threads, "share": section_share,
            "parts": section_parts, "isa": section_isa, "probe": section_probe, "pca": section_pca,
            "whole": section_whole, "pool": section_pool, "service": section_service, "watch": section_watch}
BESIDE_TORCH = {"step", "shapes", "parts", "probe", "pca", "whole"}


# --- all of it -------------------------------------------------------------------------------------

def print_judged(judged):
    heading("Targets")
    table(("", "target", "measured", ""), [(j["what"], j["target"], j["measured"], "met" if j["met"] else "missed")
                                          for j in judged])


def main():
    words = argparse.ArgumentParser(description="Benchmarks of ovrd, beside PyTorch.")
    words.add_argument("--full", action="store_true", help="with the whole reference experiment: 45 minutes")
    words.add_argument("--build", default=os.path.join(ROOT, "build"), help="where the programs are")
    words.add_argument("section", nargs="*", help=f"only these: {', '.join(SECTIONS)}")
    options = words.parse_args()
    unknown = set(options.section) - set(SECTIONS)
    if unknown:
        fail(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as scratch:
        bench = Bench(options.build, options.full, scratch)
        machine = {**bench.machine, "load_before": os.getloadavg()[0],
                   "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
        say(f"{machine['processor']}, {machine['cores']} cores, {machine['isa']}; {machine['blas']} with the kernel "
            f"{machine['blas_kernel']}; ovrd {machine['version']}; load {machine['load_before']:.2f} before")
        names = options.section or SECTIONS
        figures = {"machine": machine, "torch": start_torch(bench) if set(names) & BESIDE_TORCH else {}}
        for name in names:
            begun = time.monotonic()
            figures[name] = SECTIONS[name](bench)
            figures[name]["section_seconds"] = time.monotonic() - begun
        bench.close()
        figures["targets"] = bench.judged
        machine["seconds"] = time.monotonic() - started
    print_judged(bench.judged)
    directory = os.path.join(options.build, "bench")
    os.makedirs(directory, exist_ok=True)
    name = "-".join(["bench-full" if options.full else "bench", *options.section])
    path = os.path.join(directory, name + ".json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=2)
    say(f"\n{machine['seconds']:.0f} s. All figures: {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
