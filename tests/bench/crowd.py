"""A hundred thousand experiments that wait: how fast more are taken, how long pages of the queue and of lists take, through
the API; and what deciding who is next takes by itself (decide.c). A daemon with few that wait is measured first, to compare.

One worker trains a long experiment the while, with one thread, so that nothing else starts; it takes one core."""
import json
import os
import shutil
import subprocess
import tempfile
import time

from daemon import Daemon
from service import deep_page, page_times, wrk

FEW, MANY = 1000, 100000
SWEEP = 1000  # SWEEP_MAX_EXPERIMENTS of server/sweeps.h
ROUNDS = 300
OWNERS = (1, 10, 1000)
SMALL = {"name": "small", "tags": ["bench"], "dataset": {"generator": "sphere", "samples": 500},
         "model": {"kind": "mlp", "hidden": [20]}, "training": {"epochs": 1}}
LONG = {**SMALL, "name": "long", "priority": 100, "dataset": {"generator": "sphere", "samples": 5000},
        "model": {"kind": "mlp", "hidden": [1000]}, "training": {"epochs": 100000, "threads": 1}}


def post_sweeps(daemon, client, n):
    """n experiments by sweeps; seconds of each request."""
    seconds = []
    while n > 0:
        points = min(n, SWEEP)
        document = {"name": "many", "base": SMALL, "grid": {"/training/seed": list(range(1, points + 1))}}
        before = time.perf_counter()
        daemon.call(client, "POST", "/v1/sweeps", json.dumps(document).encode())
        seconds.append(time.perf_counter() - before)
        n -= points
    return seconds


def post_some(daemon, client, seconds):
    """Experiments one by one: by wrk where it is there, with one client and with many."""
    if shutil.which("wrk"):
        return {str(n): wrk(daemon, "submit.lua", n, seconds, json.dumps(SMALL)) for n in (1, 8, 64)}
    times, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        before = time.perf_counter()
        daemon.call(client, "POST", "/v1/experiments", json.dumps(SMALL).encode())
        times.append(1e3 * (time.perf_counter() - before))
    times.sort()
    return {"1": {"per_second": len(times) / seconds, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100],
                  "refused": 0, "connections": 1}}


def waiting(daemon, client):
    return daemon.call(client, "GET", "/v1/queue?limit=1")["waiting_total"]


def measure_pages(daemon, client):
    n = waiting(daemon, client)
    some = daemon.call(client, "GET", f"/v1/queue?limit=1&cursor={n // 2}")["waiting"][0]["id"]
    paths = {"GET /v1/queue": "/v1/queue", "GET /v1/queue, the last page": f"/v1/queue?cursor={n - 50}",
             "GET /v1/experiments": "/v1/experiments", "GET /v1/experiments?state=queued": "/v1/experiments?state=queued",
             "the last page of it": deep_page(client, "/v1/experiments?state=queued"),
             "GET /v1/experiments?tag=bench": "/v1/experiments?tag=bench",
             "GET /v1/experiments?tag=nobody": "/v1/experiments?tag=nobody",
             "GET /v1/experiments?name=nobody": "/v1/experiments?name=nobody",
             "GET /v1/experiments?owner=nobody": "/v1/experiments?owner=nobody",
             "GET /v1/experiments?state=failed": "/v1/experiments?state=failed",
             "GET /v1/experiments?created_after=2100…": "/v1/experiments?created_after=2100-01-01T00:00:00Z",
             "GET /v1/experiments/{id}, in the middle of the queue": "/v1/experiments/" + some}
    return {name: page_times(client, path, ROUNDS) for name, path in paths.items()}


def measure_decisions(decide, where, n):
    """By the number of owners; each of them has two at least."""
    return {str(owners): json.loads(subprocess.run([decide, where, str(n), str(owners)], stdout=subprocess.PIPE, check=True)
                                    .stdout) for owners in OWNERS if n >= 2 * owners}


def measure(build, where, n, seconds):
    figures = {"decisions": measure_decisions(os.path.join(build, "tests/bench/decide"), where, n)}
    with Daemon(os.path.join(build, "ovrd"), where, "--workers", "1") as daemon:
        client = daemon.client()
        daemon.call(client, "POST", "/v1/experiments", json.dumps(LONG).encode())
        sweeps = post_sweeps(daemon, client, n)
        pages = measure_pages(daemon, client)
        figures |= {"waiting": n, "sweeps": {"first": sweeps[0], "last": sweeps[-1], "all": sum(sweeps)}, "pages": pages,
                    "posts": post_some(daemon, client, seconds), "after_posts": waiting(daemon, client)}
        client.close()
    return figures


def run(build, many=MANY, seconds=4):
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as where:
        return {str(n): measure(build, where, n, seconds) for n in (FEW, many)}


# --- as a table ------------------------------------------------------------------------------------

SUBMITS, PAGE_MS = 2000, 5  # targets
DECISIONS = {"choice": "choosing who is next", "claim": "a claim, with its commit",
             "choice_remote": "choosing who is sent to a cluster", "send": "sending, with its commit"}


def mark(text, met):
    return text if met else f"**{text}**"


def page_cell(times):
    return " / ".join(mark(f"{times[p]:.3g}", times[p] < PAGE_MS) for p in ("p50", "p99"))


def rows(figures):
    """Columns and rows; bold: not within the target."""
    sides = list(figures.values())
    found = []
    for clients in sides[0]["posts"]:
        rates = [side["posts"][clients]["per_second"] for side in sides]
        found.append((f"POST /v1/experiments, {clients} at once, a second (target {SUBMITS:,})",
                      *(mark(f"{rate:.0f}", rate >= SUBMITS) for rate in rates)))
    found.append((f"POST of a sweep of {SWEEP:,}, the last one, ms", *(f"{1e3 * side['sweeps']['last']:.0f}" for side in sides)))
    for name in sides[0]["pages"]:
        found.append((f"{name}, p50 / p99 ms (target {PAGE_MS})", *(page_cell(side["pages"][name]) for side in sides)))
    for owners in sides[-1]["decisions"]:
        for name, what in DECISIONS.items():
            cells = (side["decisions"].get(owners, {}).get(name) for side in sides)
            found.append((f"{what}, owners: {owners}, p50 / p99 ms",
                          *(f"{cell['p50']:.3g} / {cell['p99']:.3g}" if cell else "" for cell in cells)))
    return ("", *(f"{side['waiting']:,} wait" for side in sides)), found
