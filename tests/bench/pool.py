#!/usr/bin/env python3
"""How well the daemon's worker pool keeps the cores busy, and how soon a job starts.

usage: pool.py [DAEMON] [--quick]          DAEMON: build/ovrd

Starts a daemon of its own on a free port and a temporary directory for each measurement (all are removed at the
end: ext4 is slow to make files where many have just been deleted):

  flood    1,000 (quick: 200) sphere jobs, posted by four clients at once. Two kinds: about 10 ms and about
           100 ms of work a job. Busy is the daemon's processor time by all cores' time, from the first POST to
           the last job's end; of what was free, the same without the time that other processes took.
  scaling  the flood of 10 ms jobs with --workers 1, 2 and 4
  idle     jobs posted one at a time, each finished before the next: from the moment the POST goes out, and from
           created_at, to started_at, and to the line "started" in the log. Times have a resolution of 1 ms.
"""
import datetime
import json
import os
import re
import sys
import tempfile
import threading
import time

from daemon import Daemon
from tools import say, table

CLIENTS = 4


def job(epochs, units):
    return {
        "dataset": {"generator": "sphere"},
        "model": {"kind": "mlp", "hidden": [units]},
        "training": {"epochs": epochs},
    }


SHORT, LONGER = job(3, 50), job(32, 50)


def seconds_idle():
    """Time that the machine's cores had nothing to do, waiting for the disk included."""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = stat.readline().split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def milliseconds(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(
        tzinfo=datetime.timezone.utc
    ).timestamp() * 1000


def post(daemon, client, spec):
    return daemon.call(client, "POST", "/v1/experiments", json.dumps(spec).encode())


def in_state(daemon, client, state):
    return daemon.call(client, "GET", f"/v1/experiments?limit=1&state={state}")["experiments"]


def post_all(daemon, spec, n):
    client = daemon.client()
    for seed in range(n):
        post(daemon, client, {**spec, "training": {**spec["training"], "seed": seed}})
    client.close()


def wait_for_all(daemon):
    client = daemon.client()
    while any(in_state(daemon, client, state) for state in ("queued", "running")):
        time.sleep(0.05)
    failed = in_state(daemon, client, "failed")
    if failed:
        raise RuntimeError(f"a job failed: {failed[0]}")
    client.close()


def flood(path, where, spec, n, *options):
    with Daemon(path, where, *options) as daemon:
        clients = [threading.Thread(target=post_all, args=(daemon, spec, n // CLIENTS)) for _ in range(CLIENTS)]
        started, used, idle = time.monotonic(), daemon.seconds_used(), seconds_idle()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        posted = time.monotonic() - started
        wait_for_all(daemon)
        seconds = time.monotonic() - started
        used, idle = daemon.seconds_used() - used, seconds_idle() - idle
    return {
        "jobs": n // CLIENTS * CLIENTS,
        "seconds": seconds,
        "jobs_per_second": n / seconds,
        "posts_per_second": n / posted,
        "busy": used / seconds / os.cpu_count(),
        "busy_of_what_was_free": used / (used + idle),
    }


def quantiles(values):
    values = sorted(values)
    return {"p50": values[len(values) // 2], "p99": values[len(values) * 99 // 100], "max": values[-1]}


def idle_starts(path, where, n):
    posted, created, logged = [], [], []
    with Daemon(path, where) as daemon:
        client = daemon.client()
        sent = {}
        for _ in range(n):
            before = time.time() * 1000
            sent[post(daemon, client, SHORT)["id"]] = before
            wait_for_all(daemon)
        for name, before in sent.items():
            shown = daemon.call(client, "GET", "/v1/experiments/" + name)
            posted.append(milliseconds(shown["started_at"]) - int(before))
            created.append(milliseconds(shown["started_at"]) - milliseconds(shown["created_at"]))
        client.close()
        with open(daemon.log, encoding="utf-8") as log:
            for line in log:
                found = re.match(r"(\S+) info experiment=(\w+) started", line)
                if found:
                    logged.append(milliseconds(found[1]) - int(sent[found[2]]))
    return {
        "jobs": n,
        "post_to_started_ms": quantiles(posted),
        "post_to_log_line_ms": quantiles(logged),
        "created_to_started_ms": quantiles(created),
    }


def run(daemon_path, quick):
    n = 200 if quick else 1000
    with tempfile.TemporaryDirectory(prefix="ovrd-bench-") as where:
        return {
            "flood": {
                "10 ms": flood(daemon_path, where, SHORT, n),
                "100 ms": flood(daemon_path, where, LONGER, n),
            },
            "scaling": {str(w): flood(daemon_path, where, SHORT, n, "--workers", str(w)) for w in (1, 2, 4)},
            "idle": idle_starts(daemon_path, where, n // 10 * (1 + bool(quick))),
        }


def show(figures):
    floods = [(name, f) for name, f in figures["flood"].items()]
    floods += [(f"10 ms, --workers {name}", f) for name, f in figures["scaling"].items()]
    table(("jobs", "how many", "seconds", "jobs/s", "cores busy", "of what was free"),
          [(name, f["jobs"], f["seconds"], f["jobs_per_second"], f"{f['busy']:.1%}", f"{f['busy_of_what_was_free']:.1%}")
           for name, f in floods])
    say()
    idle = dict(figures["idle"])
    jobs = idle.pop("jobs")
    table((f"an idle daemon, {jobs} jobs, ms", "p50", "p99", "max"),
          [(name[:-3].replace("_", " "), q["p50"], q["p99"], q["max"]) for name, q in idle.items()])


def main():
    arguments = [a for a in sys.argv[1:] if a != "--quick"]
    show(run(arguments[0] if arguments else "build/ovrd", "--quick" in sys.argv))


if __name__ == "__main__":
    main()
