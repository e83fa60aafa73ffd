"""A hundred thousand experiments that wait: how fast more are taken, how long pages of the queue and of lists take, and
what deciding who is next adds. All of it through the API. A daemon with few that wait is measured first, to compare.

One worker trains a long experiment the while, with one thread, so that nothing else starts; it takes one core."""
import json
import os
import shutil
import tempfile
import time

from daemon import Daemon
from pool import milliseconds
from service import deep_page, page_times, wrk

FEW, MANY = 1000, 100000
SWEEP = 1000  # SWEEP_MAX_EXPERIMENTS of server/sweeps.h
ROUNDS, DECISIONS = 300, 400
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
             "GET /v1/experiments/{id}, in the middle of the queue": "/v1/experiments/" + some}
    return {name: page_times(client, path, ROUNDS) for name, path in paths.items()}


def measure_decisions(daemon, client, holder):
    """Lets the small ones run: ms from one start to the next. In it is one decision of who is next; all else in it is the
    same with few that wait and with many. (Who ran before may still be at its files when the next one starts.)"""
    daemon.call(client, "POST", f"/v1/experiments/{holder}/cancel")
    ends, listed = time.monotonic() + 60, []
    while len(listed) < DECISIONS and time.monotonic() < ends:
        time.sleep(0.5)
        path = f"/v1/experiments?state=succeeded&sort=finished&limit={DECISIONS}"
        listed = daemon.call(client, "GET", path)["experiments"]
    starts = sorted(milliseconds(e["started_at"]) for e in listed)
    return {"n": len(starts) - 1, "mean": (starts[-1] - starts[0]) / (len(starts) - 1)}


def measure(program, where, n, seconds):
    with Daemon(program, where, "--workers", "1") as daemon:
        client = daemon.client()
        holder = daemon.call(client, "POST", "/v1/experiments", json.dumps(LONG).encode())["id"]
        sweeps = post_sweeps(daemon, client, n)
        pages = measure_pages(daemon, client)
        figures = {"waiting": n, "sweeps": {"first": sweeps[0], "last": sweeps[-1], "all": sum(sweeps)}, "pages": pages,
                   "posts": post_some(daemon, client, seconds), "after_posts": waiting(daemon, client)}
        figures["decisions"] = measure_decisions(daemon, client, holder)
        client.close()
    return figures


def run(program, many=MANY, seconds=4):
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as where:
        return {str(n): measure(program, where, n, seconds) for n in (FEW, many)}


# --- as a table ------------------------------------------------------------------------------------

SUBMITS, PAGE_MS = 2000, 5  # targets


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
    found.append(("small experiments one after the other, from start to start, ms",
                  *(f"{side['decisions']['mean']:.2f}" for side in sides)))
    return ("", *(f"{side['waiting']:,} wait" for side in sides)), found
