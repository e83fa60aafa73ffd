"""What watchers cost: the processor time that 200 streams add to a training daemon, and how long a change takes to
reach all of them."""
import datetime
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time

from daemon import Daemon
from tools import median, say, table

WATCHERS = 200
SPEC = {"dataset": {"generator": "sphere", "samples": 5000}, "model": {"kind": "mlp", "hidden": [1024, 512]},
        "training": {"threads": 2}}


def submit(daemon, client, epochs):
    spec = {**SPEC, "training": {**SPEC["training"], "epochs": epochs}}
    return daemon.call(client, "POST", "/v1/experiments", json.dumps(spec).encode())["id"]


def finished(daemon, client, experiment):
    while True:
        shown = daemon.call(client, "GET", f"/v1/experiments/{experiment}")
        if shown["state"] in ("succeeded", "failed", "cancelled"):
            return shown
        time.sleep(0.05)


def read_streams(host, port, path, n):
    """Follows n streams to their ends. Prints a line when all are there, then for each the number of every event that
    came after that and the time in ms from its `at` to when it was read. What was read is looked at only when all is
    over."""
    poll, streams, left = select.epoll(), {}, n
    for _ in range(n):
        stream = socket.create_connection((host, port))
        stream.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        streams[stream.fileno()] = stream, []
        poll.register(stream, select.EPOLLIN)
    connected = 0
    while left:
        for file, _ in poll.poll():
            got = os.read(file, 1 << 16)
            streams[file][1].append((time.time(), got))
            if not got:
                left -= 1
                poll.unregister(file)
        if not connected and all(pieces for _, pieces in streams.values()):
            connected = time.time()
            print("connected", flush=True)
    for _, pieces in streams.values():
        print(json.dumps(delays(pieces, connected)))


def delays(pieces, since):
    """Of the events that have an `at`, the number, and the ms until the piece came in which they end."""
    found, text = [], b""
    for when, piece in pieces:
        text += piece
        *events, text = text.split(b"\n\n")
        for event in events:
            seen = re.search(rb'id: (\d+)\n.*"at":"([^"]+)Z"', event, re.DOTALL)
            made = seen and datetime.datetime.fromisoformat(seen[2].decode() + "+00:00").timestamp()
            if made and made > since:
                found.append((int(seen[1]), (when - made) * 1e3))
    return found


class Watchers:
    """They read in a process of their own."""

    def __init__(self, daemon, experiment):
        self.process = subprocess.Popen(
            [sys.executable, __file__, daemon.address[0], str(daemon.address[1]),
             f"/v1/experiments/{experiment}/events", str(WATCHERS)], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def end(self):
        """The delays of each stream."""
        return [json.loads(line) for line in self.process.communicate()[0].splitlines()]


def cost(daemon, client, rounds, epochs):
    """Runs without and with watchers by turns. Processor seconds of the daemon and seconds of training."""
    results = {False: [], True: []}
    for turn in range(2 * rounds):
        watched = turn % 2 == 1
        before = daemon.seconds_used()
        experiment = submit(daemon, client, epochs)
        watchers = Watchers(daemon, experiment) if watched else None
        shown = finished(daemon, client, experiment)
        if watchers:
            assert len(watchers.end()) == WATCHERS
        times = [datetime.datetime.fromisoformat(shown[name].replace("Z", "+00:00"))
                 for name in ("started_at", "finished_at")]
        results[watched].append((daemon.seconds_used() - before, (times[1] - times[0]).total_seconds()))
    return results


def spread(values):
    values = sorted(values)
    return {"p50": values[len(values) // 2], "p99": values[len(values) * 99 // 100], "max": values[-1]}


def latencies(daemon, client, epochs):
    """From the row of an epoch of a job on all cores to its arrival at each watcher, and the two parts of it. Until the
    first of them has it is for the most part the commit: before it is on the disk nobody is told. From there on it is
    the server that tells all the others."""
    watchers = Watchers(daemon, submit(daemon, client, epochs))
    late = [seen for stream in watchers.end() for seen in stream]
    first = {}
    for number, ms in late:
        first[number] = min(ms, first.get(number, ms))
    return {"latencies": len(late), "latency_ms": spread(ms for _, ms in late), "first_ms": spread(first.values()),
            "others_ms": spread(ms - first[number] for number, ms in late)}


def run(program, quick):
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as where, \
            Daemon(program, where, "--workers", "1") as daemon:
        client = daemon.client()
        runs = cost(daemon, client, 3 if quick else 8, 40 if quick else 200)
        late = latencies(daemon, client, 100 if quick else 400)
        client.close()
    cpu = {watched: median([r[0] for r in results]) for watched, results in runs.items()}
    wall = {watched: median([r[1] for r in results]) for watched, results in runs.items()}
    pairs = [b[0] / a[0] - 1 for a, b in zip(runs[False], runs[True])]
    return {"watchers": WATCHERS, "cpu_seconds": cpu, "wall_seconds": wall, "cost": median(pairs), "costs": pairs, **late}


def show(figures):
    cpu, wall = figures["cpu_seconds"], figures["wall_seconds"]
    table(("", "processor s", "training s"),
          [("nobody watches", f"{cpu[False]:.2f}", f"{wall[False]:.2f}"),
           (f"{figures['watchers']} watch", f"{cpu[True]:.2f}", f"{wall[True]:.2f}")])
    say(f"Processor time of the daemon: {figures['cost']:+.1%}. The watching program takes its own, which the training "
        "seconds have in them.")
    table((f"ms, {figures['latencies']:,} events received", "p50", "p99", "longest"),
          [(name, *figures[part].values()) for name, part in (
              ("from the row to a watcher", "latency_ms"), ("to the first watcher: the commit, for the most part", "first_ms"),
              ("from the first watcher to the others", "others_ms"))])


if __name__ == "__main__":
    read_streams(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
