"""The daemon's side of docs/worker.md, played for a worker: takes nothing on trust, notes every breach of the protocol,
and goes wrong when it is asked to. And `Reference`: what a real daemon makes of the same spec."""
import base64
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
from typing import Any, Callable, Optional

import ovrd
from support import BUILD, Process

WORKER = os.path.join(BUILD, "ovr-worker")
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "-n"]
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ONE_RANK = None if shutil.which("mpirun") and shutil.which("mpicc") and os.path.basename(BUILD) == "build" else \
    "needs OpenMPI (scripts/deps.sh mpi), which ovr-worker is built without when it is built with sanitizers"
TOKEN = "ovrw_" + "5e" * 32
MEMBERS = {"number", "begin", "restart_from", "progress", "epochs", "log", "checkpoint", "end"}
PROGRESS = {"phase", "epoch", "epochs", "step", "steps", "samples", "seconds", "threads", "memory_bytes"}
ENDS = {"succeeded": {"state", "result", "provenance", "histograms", "tensors", "unit_tables"},
        "failed": {"state", "problem"}, "paused": {"state"}, "queued": {"state", "reason"}}
BINS = 58

Plan = Callable[[str, str, int], Any]


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class Refused(Exception):
    """The worker broke the protocol."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Daemon"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: Any) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def problem(self, status: int, kind: str, detail: str, **headers: Any) -> None:
        body = json.dumps({"type": "/problems/" + kind, "title": kind, "status": status, "detail": detail})
        self.answer(status, body.encode(), "application/problem+json", **headers)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def serve(self) -> None:
        daemon = self.server
        with daemon.lock:
            n = daemon.n_requests
            daemon.n_requests += 1
            daemon.seen.append((self.command, self.path, time.monotonic()))
        fault = daemon.plan(self.command, self.path, n) if daemon.plan else None
        if fault == "reset":
            return self.reset()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "hang":
            daemon.hung.wait(60)
            return self.reset()
        if fault in (413, 422, 429, 500, 502, 503):
            return self.problem(fault, "busy", "not now", **({"Retry_After": 1} if fault in (429, 503) else {}))
        if fault == "slow":
            time.sleep(0.4)
        with daemon.lock:
            if fault in (401, 409) or daemon.over:
                daemon.over = daemon.over or fault
                return self.problem(daemon.over, "attempt-over" if daemon.over == 409 else "unauthorized",
                                    "attempt 1 is over; stop")
            if self.command == "POST" and daemon.cancel and daemon.cancel():
                daemon.over = 409
                return self.problem(409, "attempt-over", "the experiment was cancelled; stop")
            try:
                status, answer, kind = daemon.take(self.command, self.path, self.headers, body)
            except Refused as refused:
                daemon.breaches.append(f"{self.command} {self.path}: {refused}")
                return self.problem(422, "invalid", str(refused))
        if fault == "lose":  # it was taken, and nobody hears so
            return self.reset()
        if fault == "damage":
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        self.answer(status, answer, kind)

    do_GET = do_PUT = do_POST = serve


class Daemon(http.server.ThreadingHTTPServer):
    """A context manager. plan(method, path, number of the request) says what goes wrong with it: None, "reset" (it never
    arrives), "lose" (it is taken, the answer is lost), "hang", "slow", "damage" (the last byte of the answer), 413, 422,
    429, 5xx, 409 or 401 (from then on). tell(daemon, report) may return the answer's stop."""
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, reference: "Reference", plan: Optional[Plan] = None,
                 tell: Optional[Callable[["Daemon", Any], Optional[str]]] = None, tls: Any = None, **work: Any):
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_address[1]}"
        self.reference, self.plan, self.tell = reference, plan, tell
        self.work = {"experiment": "abcdefghjkmn", "attempt": 1, "spec": reference.spec, "threads": 1, "ranks": 1,
                     "isa": "auto", "data": reference.data, "data_dir": None, "computed_ms": 0, "batch": 0,
                     "checkpoint": 0, "checkpoint_before": 0, "checkpoint_seconds": 0, "lease_seconds": 30, **work}
        self.lock = threading.RLock()
        self.hung = threading.Event()
        self.n_requests, self.over, self.begun, self.pauses = 0, 0, False, False
        self.seen: list[tuple[str, str, float]] = []
        self.breaches: list[str] = []
        self.reports: dict[int, bytes] = {}
        self.epochs: dict[int, Any] = {}
        self.restarts: list[int] = []
        self.lines: list[Any] = []
        self.parts: dict[tuple[int, int], bytes] = {}
        self.files: dict[str, bytes] = {}
        self.end: Any = None
        self.repeats = 0
        self.cancel: Optional[Callable[[], bool]] = None

    def __enter__(self) -> "Daemon":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.hung.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a worker that was killed

    def next_attempt(self) -> None:
        """What an experiment that goes back to the queue becomes."""
        with self.lock:
            self.work["attempt"] += 1
            self.begun, self.over, self.end, self.pauses = False, 0, None, False
            self.files = {}

    def check(self, good: Any, why: str) -> None:
        if not good:
            raise Refused(why)

    def take(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, bytes, str]:
        self.check(headers.get_all("Authorization") == ["Bearer " + TOKEN], "the token is not in its header")
        self.check(TOKEN not in path, "the token is in the path")
        self.check("Content-Length" in headers or method == "GET", "no Content-Length")
        self.check(self.end is None or method == "POST", "a call after the end")
        if (method, path) == ("GET", "/v1/work"):
            return 200, json.dumps(self.work).encode(), "application/json"
        if (method, path) == ("POST", "/v1/work/reports"):
            return 200, self.take_report(headers, body), "application/json"
        found = re.fullmatch(r"/v1/work/data/(train|test)", path)
        if method == "GET" and found and self.reference.data:
            return 200, self.reference.splits[found[1]], "application/octet-stream"
        found = re.fullmatch(r"/v1/work/checkpoints/([1-9]\d*)/(0|[1-9]\d*)", path)
        if found:
            return self.take_part(method, (int(found[1]), int(found[2])), body)
        found = re.fullmatch(r"/v1/work/files/((?:best|last|units)/[a-z0-9_.]+\.npy)", path)
        if method == "PUT" and found:
            self.check(self.begun, "a file before the first report")
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            self.check(headers["Content-Digest"] == f"sha-256=:{digest}:", "Content-Digest is not that of the bytes")
            self.files[found[1]] = body
            return 204, b"", "text/plain"
        raise Refused("there is no such call")

    def take_part(self, method: str, key: tuple[int, int], body: bytes) -> tuple[int, bytes, str]:
        self.check(self.begun or method == "GET", "a checkpoint before the first report")
        self.check(key[1] < self.work["ranks"], "there is no such rank")
        if method == "GET":
            if key not in self.parts:
                return 404, b"{}", "application/problem+json"
            return 200, self.parts[key], "application/octet-stream"
        self.check(key[0] > self.work["checkpoint"], "it counts already")
        self.parts[key] = body
        return 204, b"", "text/plain"

    def take_report(self, headers: Any, body: bytes) -> bytes:
        self.check(headers["Content-Type"] == "application/json", "Content-Type")
        self.check(len(body) <= 1 << 20, "more than a megabyte")
        report = json.loads(body, parse_constant=no_constant)
        number = report["number"]
        if number == self.work["batch"] and number in self.reports:
            self.check(self.reports[number] == body, "the same number with other bytes")
            self.repeats += 1
        else:
            self.check(number == self.work["batch"] + 1, f"number {number} after {self.work['batch']}")
            self.check(self.end is None, "a report after the last one")
            self.check(("begin" in report) == (not self.begun), "begin has to be in the first report, and there alone")
            self.store(report)
            self.work["batch"] = number
            self.reports[number] = body
            self.begun = True
        stop = self.tell(self, report) if self.tell else None
        return json.dumps({"number": number, "stop": stop or "no"}).encode()

    def store(self, report: Any) -> None:
        self.check(set(report) <= MEMBERS and set(report["progress"]) == PROGRESS, f"members {sorted(report)}")
        self.check(all(value >= 0 for value in report["progress"].values()), "progress below 0")
        if "begin" in report:
            self.check(set(report["begin"]) <= {"node", "cores", "job"} and report["begin"]["node"], "begin")
            self.check(report["begin"]["cores"] == self.work["threads"] * self.work["ranks"], "cores")
        if "restart_from" in report:
            self.restarts.append(report["restart_from"])
            self.epochs = {n: epoch for n, epoch in self.epochs.items() if n < report["restart_from"]}
        self.check(all(line["level"] in ("info", "warning") for line in report.get("log", [])), "a level")
        self.check(1 <= len(report.get("epochs", [0])) <= 64 and 1 <= len(report.get("log", [0])) <= 64, "list sizes")
        for epoch in report.get("epochs", []):
            self.check(epoch["epoch"] == len(self.epochs) + 1, f"epoch {epoch['epoch']} after {len(self.epochs)}")
            self.check(1 <= len(epoch["figures"]) <= 192 and len(epoch["histograms"]) <= 8, "sizes of an epoch")
            self.check_histograms(epoch["histograms"])
            self.epochs[epoch["epoch"]] = epoch
        self.lines += [line["text"] for line in report.get("log", [])]
        if "checkpoint" in report:
            self.take_checkpoint(report["checkpoint"])
        if "end" in report:
            self.take_end(report["end"])

    def check_histograms(self, histograms: Any) -> None:
        for h in histograms:
            self.check(len(h["counts"]) == BINS and sum(h["counts"]) + h["zero_count"] == h["total"], "a histogram")

    def take_checkpoint(self, checkpoint: Any) -> None:
        number = checkpoint["number"]
        self.check(number > self.work["checkpoint"], "an old checkpoint")
        self.check(all((number, rank) in self.parts for rank in range(self.work["ranks"])), "a part is missing")
        self.check(checkpoint["computed_ms"] >= self.work["computed_ms"], "computed_ms")
        self.work.update(checkpoint_before=self.work["checkpoint"], checkpoint=number,
                         computed_ms=checkpoint["computed_ms"])
        kept = self.work["checkpoint"], self.work["checkpoint_before"]
        self.parts = {key: part for key, part in self.parts.items() if key[0] in kept}

    def take_end(self, end: Any) -> None:
        self.check(set(end) == ENDS[end["state"]], f"members of the end: {sorted(end)}")
        if end["state"] == "succeeded":
            self.check_histograms(end["histograms"])
            for tensor in end["tensors"]:
                file = self.files[f"{tensor['epoch']}/{tensor['name']}.npy"]
                self.check(len(file) == 128 + 4 * tensor["rows"] * tensor["columns"], "the size of a tensor")
        self.end = end

    def order(self, directory: str, ca: str = "") -> str:
        path = os.path.join(directory, "order")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"url={self.url}\ntoken={TOKEN}\n" + (f"ca={ca}\n" if ca else ""))
        return path


def start(order: str, ranks: int = 0, **environment: str) -> "subprocess.Popen[str]":
    command = [*MPIRUN, str(ranks)] if ranks else []
    return subprocess.Popen([*command, WORKER, order], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **AS_ROOT, **environment})


class Reference:
    """An experiment that a real daemon has run to its end: its stored spec, and all that it stored of it."""

    def __init__(self, document: Any, dataset: Any = None):
        with Process("--workers", "1") as process:
            with ovrd.connect(process.url) as lab:
                for split, (samples, labels) in (dataset or {}).items():
                    lab.upload(document["dataset"]["name"], split, samples, labels)
                self.provenance = lab.submit(document).wait(300).data["provenance"]
            process.stop()
            self.read(os.path.join(process.directory.name, "data"))

    def read(self, data: str) -> None:
        with sqlite3.connect(f"file:{data}/ovrd.sqlite3?mode=ro", uri=True) as base:
            (self.spec,) = base.execute("SELECT spec FROM experiment").fetchone()
            self.figures: dict[int, list[tuple[str, Any]]] = {}
            for epoch, name, value in base.execute("SELECT epoch, name, value FROM figure ORDER BY epoch, position"):
                self.figures.setdefault(epoch, []).append((name, value))
            self.histograms: dict[int, list[Any]] = {}
            for epoch, layer, *rest, counts in base.execute(
                    "SELECT epoch, layer, split, zero_count, total, maximum, counts FROM histogram ORDER BY epoch, layer"):
                self.histograms.setdefault(epoch, []).append((layer, *rest, struct.unpack(f"<{BINS}q", counts)))
            self.tensors = base.execute("SELECT epoch, name, dtype, dimensions, rows, columns FROM tensor").fetchall()
            self.tables = base.execute("SELECT layer, split, units, classes, cells FROM unit_table").fetchall()
        base.close()
        self.files = read_tree(os.path.join(data, "experiments"))
        self.splits: dict[str, bytes] = {}
        self.data = None
        spec = json.loads(self.spec)
        if "name" in spec["dataset"]:
            self.data = {}
            for split in "train", "test":
                sha256 = spec["dataset"]["version"][split]
                with open(f"{data}/datasets/{sha256}", "rb") as file:
                    self.splits[split] = file.read()
                self.data[split] = {"sha256": sha256, "bytes": len(self.splits[split])}


def read_tree(directory: str) -> dict[str, bytes]:
    """The files of the one experiment there."""
    found = {}
    for here, _, files in os.walk(directory):
        for name in files:
            with open(os.path.join(here, name), "rb") as file:
                found[os.path.basename(here) + "/" + name] = file.read()
    return found


@functools.lru_cache(maxsize=None)
def _reference(text: str) -> Reference:
    return Reference(json.loads(text))


def reference(document: Any) -> Reference:
    return _reference(json.dumps(document))


def directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="ovrd-test-")
