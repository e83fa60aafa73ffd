"""What watchers cost: the processor time that 200 streams add to a training daemon, and how long a change takes to
reach all of them."""
import datetime
import json
import selectors
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
    """Follows n streams to their ends. Prints a line when all are there, then for each its bytes and the time in ms
    from the last event with an `at` to when it was read."""
    selector = selectors.DefaultSelector()
    for _ in range(n):
        stream = socket.create_connection((host, port))
        stream.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        selector.register(stream, selectors.EVENT_READ, {"bytes": 0, "last": b"", "at": 0})
    print("connected", flush=True)
    done = []
    while selector.get_map():
        for key, _ in selector.select():
            got, state = key.fileobj.recv(1 << 16), key.data
            if got:
                state["bytes"] += len(got)
                state["last"] = (state["last"] + got)[-400:]
                state["at"] = time.time()
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                done.append(state)
    for state in done:
        last = json.loads(state["last"].rpartition(b"data: ")[2])
        at = datetime.datetime.fromisoformat(last["at"].replace("Z", "+00:00")).timestamp()
        print(state["bytes"], (state["at"] - at) * 1e3)


class Watchers:
    """They read in a process of their own."""

    def __init__(self, daemon, experiment):
        self.process = subprocess.Popen(
            [sys.executable, __file__, daemon.address[0], str(daemon.address[1]),
             f"/v1/experiments/{experiment}/events", str(WATCHERS)], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def end(self):
        lines = [line.split() for line in self.process.communicate()[0].splitlines()]
        return [int(line[0]) for line in lines], [float(line[1]) for line in lines]


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
            assert len(watchers.end()[0]) == WATCHERS
        times = [datetime.datetime.fromisoformat(shown[name].replace("Z", "+00:00"))
                 for name in ("started_at", "finished_at")]
        results[watched].append((daemon.seconds_used() - before, (times[1] - times[0]).total_seconds()))
    return results


def latencies(daemon, client, rounds):
    """From the moment at which a change is stored to its arrival at each watcher, while all cores train."""
    blocker, found = submit(daemon, client, 1000000), []
    for _ in range(rounds):
        waiting = submit(daemon, client, 1)
        watchers = Watchers(daemon, waiting)
        time.sleep(0.5)
        daemon.call(client, "POST", f"/v1/experiments/{waiting}/cancel")
        found += watchers.end()[1]
    daemon.call(client, "POST", f"/v1/experiments/{blocker}/cancel")
    return sorted(found)


def run(program, quick):
    with tempfile.TemporaryDirectory(prefix="ovrd-bench.") as where, \
            Daemon(program, where, "--workers", "1") as daemon:
        client = daemon.client()
        runs = cost(daemon, client, 3 if quick else 8, 40 if quick else 200)
        late = latencies(daemon, client, 10 if quick else 50)
        client.close()
    cpu = {watched: median([r[0] for r in results]) for watched, results in runs.items()}
    wall = {watched: median([r[1] for r in results]) for watched, results in runs.items()}
    pairs = [b[0] / a[0] - 1 for a, b in zip(runs[False], runs[True])]
    return {"watchers": WATCHERS, "cpu_seconds": cpu, "wall_seconds": wall, "cost": median(pairs), "costs": pairs,
            "latency_ms": {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "max": late[-1]}}


def show(figures):
    cpu, wall, late = figures["cpu_seconds"], figures["wall_seconds"], figures["latency_ms"]
    table(("", "processor s", "training s"),
          [("nobody watches", f"{cpu[False]:.2f}", f"{wall[False]:.2f}"),
           (f"{figures['watchers']} watch", f"{cpu[True]:.2f}", f"{wall[True]:.2f}")])
    say(f"Processor time of the daemon: {figures['cost']:+.1%}. The watching program takes its own, which the training "
        f"seconds have in them.\nFrom stored to received, ms: median {late['p50']:.1f}, p99 {late['p99']:.1f}, "
        f"longest {late['max']:.1f}.")


if __name__ == "__main__":
    read_streams(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
