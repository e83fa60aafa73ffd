"""A worker on a cluster, played here against a real daemon: what it fetches, brings and reports (docs/worker.md).

Its experiment is the copy of one that the daemon itself has run, so that the figures and files are real; the attempt is
written into the database while the daemon is stopped, as the executor for Slurm would have.
"""
import base64
import contextlib
import glob
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import threading
import time
import unittest
import urllib.parse

from support import Process, main

CSV = b"a,b,kind\n" + b"".join(b"%d,%d,%s\n" % (i, i * i % 7, b"xy"[i % 2:i % 2 + 1]) for i in range(60))
SPEC = {"dataset": {"name": "table"}, "model": {"kind": "ovr_encoder", "hidden": [8]}, "training": {"epochs": 3}, "probe": None}
PROGRESS = {"phase": 1, "epoch": 1, "epochs": 3, "step": 1, "steps": 9, "samples": 60, "seconds": 1, "threads": 2, "memory_bytes": 0}
FIGURE = [{"name": "train.loss", "real": 0.5}]


class Worker:
    """The one that has this token."""

    def __init__(self, lab, experiment, token):
        self.lab, self.id, self.token, self.number = lab, experiment, token, 0

    def call(self, method, path, body=None, **headers):
        return self.lab.call(method, "/v1/work" + path, body, Authorization=f"Bearer {self.token}", **headers)

    def report(self, number=None, **members):
        """Status and answer of the next report, or of the one with this number."""
        status, answer = self.call("POST", "/reports", {"number": number or self.number + 1, "progress": PROGRESS, **members})
        if status == 200 and not number:
            self.number += 1
        return status, answer

    def begin(self):
        return self.report(begin={"node": "h1", "cores": 2, "job": "7"})

    def put(self, directory, name, content):
        return self.call("PUT", f"/files/{directory}/{name}", content)[0]


class Case(unittest.TestCase):
    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.daemon = cls.stack.enter_context(Process("--workers", "1", "--max-body", "256K", *cls.OPTIONS))
        cls.data = os.path.join(cls.daemon.directory.name, "data")
        cls.local = None

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    @classmethod
    def call(cls, method, path, body=None, **headers):
        address = urllib.parse.urlparse(cls.daemon.url)
        client = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        if isinstance(body, (dict, list)):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = client.getresponse()
        content = answer.read()
        client.close()
        kind = answer.getheader("Content-Type", "")
        return answer.status, json.loads(content) if "json" in kind else content

    def show(self, id):
        return self.call("GET", f"/v1/experiments/{id}")[1]

    def wait_for(self, id, state):
        for _ in range(600):
            shown = self.show(id)
            if shown["state"] == state:
                return shown
            time.sleep(0.05)
        self.fail(f"it is {shown['state']}, {shown['error']}, not {state}")

    def run_here(self):
        """An experiment that the daemon has run itself; once for all."""
        cls = type(self)
        if not cls.local:
            for split in ("train", "test"):
                self.assertEqual(self.call("PUT", f"/v1/datasets/table/{split}?format=csv&label=last", CSV)[0], 201)
            status, shown = self.call("POST", "/v1/experiments", SPEC)
            self.assertEqual(status, 202)
            self.wait_for(shown["id"], "succeeded")
            cls.local = shown["id"]
        return cls.local

    def database(self):
        return sqlite3.connect(os.path.join(self.data, "ovrd.sqlite3"))

    def ask(self, query, *values):
        with contextlib.closing(self.database()) as db:
            return db.execute(query, values).fetchall()

    def copy(self, db, **changes):
        """A new experiment with the spec of the one that has run; its id and seq."""
        id = "0w" + secrets.token_hex(5)
        row = {"revision": 1, "state": "queued", "started_at": None, "finished_at": None, "attempts": 0, "seq": None, **changes, "id": id}
        names = [column[1] for column in db.execute("PRAGMA table_info(experiment)")]
        columns = ", ".join("?" if name in row else name for name in names)
        cursor = db.execute(f"INSERT INTO experiment ({', '.join(names)}) SELECT {columns} FROM experiment WHERE id = ?",
                            [row[name] for name in names if name in row] + [self.local])
        return id, cursor.lastrowid

    def attempt(self, db, seq, id, number):
        token = "ovrw_" + secrets.token_hex(32)
        db.execute("UPDATE experiment SET sent = 1, attempts = ? WHERE seq = ?", (number, seq))
        db.execute("INSERT INTO attempt (experiment, number, token_sha256, job_name, submitted_at) VALUES (?, ?, ?, ?, ?)",
                   (seq, number, hashlib.sha256(token.encode()).hexdigest(), f"ovrd-{id}-{number}", int(time.time() * 1000)))
        return Worker(self, id, token)

    def send(self, then=lambda db, seq: None, **changes):
        """A worker for a new experiment; then() may change more."""
        self.run_here()
        self.daemon.stop()
        with contextlib.closing(self.database()) as db, db:
            id, seq = self.copy(db, executor=1, **changes)
            worker = self.attempt(db, seq, id, 1)
            worker.other = then(db, seq)
        self.daemon.start()
        return worker

    # What the daemon itself found is what the worker reports.

    def rows(self, epoch):
        (seq,), = self.ask("SELECT seq FROM experiment WHERE id = ?", self.local)
        kinds = {float: "real", int: "count", str: "text", type(None): "real"}
        return [{"name": name, kinds[type(value)]: value} for name, value in
                self.ask("SELECT name, value FROM figure WHERE experiment = ? AND epoch = ? ORDER BY position", seq, epoch)]

    def histograms(self, epoch):
        (seq,), = self.ask("SELECT seq FROM experiment WHERE id = ?", self.local)
        return [{"split": split, "layer": layer, "zero_count": zeros, "total": total, "maximum": maximum,
                 "counts": [int.from_bytes(counts[i:i + 8], "little") for i in range(0, len(counts), 8)]}
                for split, layer, zeros, total, maximum, counts in
                self.ask("SELECT split, layer, zero_count, total, maximum, counts FROM histogram WHERE experiment = ? AND epoch = ?",
                         seq, epoch)]

    def epoch(self, number):
        return {"epoch": number, "figures": self.rows(number), "histograms": self.histograms(number)}

    def files(self):
        """(directory, name, bytes) of the result."""
        for path in sorted(glob.glob(os.path.join(self.data, "experiments", self.local, "*", "*.npy"))):
            with open(path, "rb") as file:
                yield path.split("/")[-2], path.split("/")[-1], file.read()

    def success(self):
        (seq,), = self.ask("SELECT seq FROM experiment WHERE id = ?", self.local)
        names = ("epoch", "name", "dtype", "dimensions", "rows", "columns")
        tables = ("layer", "split", "units", "classes", "cells")
        return {"state": "succeeded", "result": self.rows(0), "provenance": self.rows(-1), "histograms": self.histograms(0),
                "tensors": [dict(zip(names, row)) for row in
                            self.ask(f"SELECT {', '.join(names)} FROM tensor WHERE experiment = ? ORDER BY epoch, position", seq)],
                "unit_tables": [dict(zip(tables, row)) for row in
                                self.ask(f"SELECT {', '.join(tables)} FROM unit_table WHERE experiment = ?", seq)]}

    def finish(self, worker):
        """From the first report to the end."""
        self.assertEqual(worker.begin()[0], 200)
        self.assertEqual(worker.report(epochs=[self.epoch(i) for i in (1, 2, 3)])[0], 200)
        for directory, name, content in self.files():
            self.assertEqual(worker.put(directory, name, content), 204)
        self.assertEqual(worker.report(end=self.success())[0], 200)

    def assert_problem(self, answer, status, kind, what=""):
        self.assertEqual(answer[0], status, answer)
        self.assertEqual(answer[1]["type"], "/problems/" + kind)
        self.assertIn(what, answer[1]["detail"])

    def left(self, worker):
        """What lies about of the experiment, its result apart."""
        return sorted(os.path.basename(path) for place in ("experiments", "checkpoints")
                      for path in glob.glob(os.path.join(self.data, place, f"*{worker.id}.*")) + glob.glob(os.path.join(self.data, place, "tmp*")))


class Life(Case):
    def test_what_it_is_told(self):
        worker = self.send(ranks=2)
        status, work = worker.call("GET", "")
        self.assertEqual(status, 200)
        self.assertEqual((work["experiment"], work["attempt"], work["ranks"], work["batch"], work["checkpoint"]), (worker.id, 1, 2, 0, 0))
        self.assertEqual(work["spec"], self.ask("SELECT spec FROM experiment WHERE id = ?", worker.id)[0][0])
        self.assertIsNone(work["data_dir"])
        for split in ("train", "test"):
            status, content = worker.call("GET", f"/data/{split}")
            self.assertEqual(status, 200)
            self.assertEqual(hashlib.sha256(content).hexdigest(), work["data"][split]["sha256"])
            self.assertEqual(len(content), work["data"][split]["bytes"])
        self.assert_problem(worker.call("GET", "/data/validation"), 404, "not-found", "validation")

    def test_to_the_end(self):
        worker = self.send()
        self.finish(worker)
        here, there = self.show(self.local), self.wait_for(worker.id, "succeeded")
        for member in ("result", "provenance"):
            self.assertEqual(here[member], there[member])
        for path in ("metrics", "histogram", "histograms", "units", "weights/encoder.weight?format=npy", "weights?epoch=last"):
            answers = [self.call("GET", f"/v1/experiments/{id}/{path}") for id in (self.local, worker.id)]
            for _, answer in answers:
                if isinstance(answer, dict):
                    answer.pop("experiment", None)
            self.assertEqual(answers[0][0], 200, path)
            self.assertEqual(*answers, path)
        states = [text for kind, text in self.ask("SELECT kind, text FROM event JOIN experiment ON seq = experiment WHERE id = ? ORDER BY number",
                                                  worker.id) if kind == "state"]
        self.assertEqual(states, ["running", "succeeded"])
        self.assertEqual(self.left(worker), [])
        self.assert_problem(worker.call("GET", ""), 409, "attempt-over")
        # The answer to its last report was lost.
        self.assertEqual(worker.report(worker.number, end=self.success()), (200, {"number": worker.number, "stop": "no"}))
        self.assert_problem(worker.report(), 409, "attempt-over")

    def test_progress_and_failure(self):
        worker = self.send()
        worker.begin()
        self.assertEqual(self.show(worker.id)["state"], "running")
        problem = {"kind": "diverged", "pointer": None, "detail": "the loss is not finite"}
        self.assertEqual(worker.report(end={"state": "failed", "problem": problem})[0], 200)
        self.assertEqual(self.show(worker.id)["error"]["type"], "/problems/diverged")

    def test_a_replay_has_its_verdict(self):
        self.run_here()
        for epochs_at_the_end in (False, True):
            worker = self.send(rerun_of=self.local, replays=1)
            worker.begin()
            epochs = [self.epoch(i) for i in (1, 2, 3)]
            if not epochs_at_the_end:
                worker.report(epochs=epochs)
            for directory, name, content in self.files():
                worker.put(directory, name, content)
            self.assertEqual(worker.report(end=self.success(), **({"epochs": epochs} if epochs_at_the_end else {}))[0], 200)
            self.assertEqual(self.show(worker.id)["result"]["replay"], "match")
        worker = self.send(rerun_of=self.local, replays=1)
        worker.begin()
        epochs = [self.epoch(i) for i in (1, 2, 3)]
        for figure in epochs[1]["figures"]:
            if figure["name"] == "digest":
                figure["text"] = "0" * 64
        worker.report(epochs=epochs)
        for directory, name, content in self.files():
            worker.put(directory, name, content)
        self.assertEqual(worker.report(end=self.success())[0], 200)
        self.assertEqual(self.show(worker.id)["result"]["replay"], "diverged at epoch 2")

    def test_who_waits_for_it_goes_on(self):
        worker = self.send(then=lambda db, seq: self.copy(db, waits_for=seq)[0])
        time.sleep(0.5)
        self.assertEqual(self.show(worker.other)["state"], "queued")
        self.finish(worker)
        self.wait_for(worker.other, "succeeded")


    def test_a_search_goes_on(self):
        self.run_here()
        base = {key: value for key, value in SPEC.items() if key != "probe"}
        status, sweep = self.call("POST", "/v1/sweeps", {"base": base, "target_sparsity": {"near_zero": 0.5, "points": 3}})
        self.assertEqual(status, 202, sweep)
        for _ in range(600):
            shown = self.call("GET", f"/v1/sweeps/{sweep['id']}")[1]
            if shown["state"] != "running":
                break
            time.sleep(0.05)

        def reopen(db, seq):
            """As if the search had one more point, and it were this one."""
            (number, points), = db.execute("SELECT seq, points FROM sweep WHERE id = ?", (sweep["id"],)).fetchall()
            db.execute("UPDATE sweep SET more = 1, points = points + 1 WHERE seq = ?", (number,))
            db.execute("INSERT INTO sweep_point SELECT sweep, ?, axis_values FROM sweep_point WHERE sweep = ? AND point = 0", (points, number))
            db.execute("UPDATE experiment SET sweep = ?, point = ?, repeat = 0 WHERE seq = ?", (number, points, seq))
        worker = self.send(reopen)
        time.sleep(1)
        self.assertEqual(self.ask("SELECT more FROM sweep WHERE id = ?", sweep["id"]), [(1,)])
        self.finish(worker)
        for _ in range(100):
            if self.ask("SELECT more FROM sweep WHERE id = ?", sweep["id"]) == [(0,)]:
                break
            time.sleep(0.05)
        self.assertEqual(self.ask("SELECT more FROM sweep WHERE id = ?", sweep["id"]), [(0,)])


class Once(Case):
    def test_repeated_and_at_once(self):
        worker = self.send()
        worker.begin()
        before = self.show(worker.id)["revision"]
        answers = []

        def post():
            answers.append(worker.report(2, epochs=[{"epoch": 1, "figures": FIGURE}], log=[{"level": "info", "text": "once"}]))
        threads = [threading.Thread(target=post) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [(200, {"number": 2, "stop": "no"})] * 8)
        self.assertEqual(self.show(worker.id)["revision"], before + 1)
        log = self.call("GET", f"/v1/experiments/{worker.id}/log")[1].decode()
        self.assertEqual(log.count("once"), 1)
        self.assertEqual(worker.report(2, epochs=[{"epoch": 7, "figures": FIGURE}])[0], 200)
        self.assertEqual(len(self.call("GET", f"/v1/experiments/{worker.id}/metrics")[1]["series"]), 1)
        self.assert_problem(worker.report(4), 409, "report-out-of-order", "number 3")
        self.assert_problem(worker.report(1), 409, "report-out-of-order", "number 3")

    def test_the_end_at_once(self):
        worker = self.send()
        worker.begin()
        for directory, name, content in self.files():
            worker.put(directory, name, content)
        answers, end = [], self.success()
        threads = [threading.Thread(target=lambda: answers.append(worker.report(2, end=end))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [(200, {"number": 2, "stop": "no"})] * 6)
        self.assertEqual(self.call("GET", f"/v1/experiments/{worker.id}/weights/encoder.bias")[0], 200)

    def test_killed_between_reports(self):
        worker = self.send(ranks=2)
        worker.begin()
        for rank in (0, 1):
            self.assertEqual(worker.call("PUT", f"/checkpoints/1/{rank}", b"part %d" % rank)[0], 204)
        self.assertEqual(worker.report(epochs=[{"epoch": 1, "figures": FIGURE}], checkpoint={"number": 1, "computed_ms": 77})[0], 200)
        for directory, name, content in self.files():
            worker.put(directory, name, content)
        for _ in range(5):  # more often than crashes may be
            self.daemon.stop(signal.SIGKILL)
            self.daemon.start()
            self.assertEqual(self.show(worker.id)["state"], "running")
            self.assertEqual(worker.report(worker.number)[0], 200)
            self.assertEqual(worker.report()[0], 200)
        work = worker.call("GET", "")[1]
        self.assertEqual((work["batch"], work["checkpoint"], work["computed_ms"]), (worker.number, 1, 77))
        self.assertEqual(worker.call("GET", "/checkpoints/1/1"), (200, b"part 1"))
        self.assertEqual(worker.report(end=self.success())[0], 200)
        self.assertEqual(self.show(worker.id)["state"], "succeeded")
        self.assertEqual(self.left(worker), [])

    def test_killed_between_name_and_commit(self):
        worker = self.send()
        worker.begin()
        for directory, name, content in self.files():
            worker.put(directory, name, content)
        self.daemon.stop(signal.SIGKILL)
        place = os.path.join(self.data, "experiments", worker.id)
        os.rename(place + ".work-1", place)
        self.daemon.start()
        self.assertEqual(worker.report(end=self.success())[0], 200)
        self.assertEqual(self.call("GET", f"/v1/experiments/{worker.id}/weights/encoder.bias")[0], 200)

    def test_what_a_lost_attempt_left_is_no_result(self):
        worker = self.send()
        worker.begin()
        self.daemon.stop(signal.SIGKILL)
        with contextlib.closing(self.database()) as db, db:
            (seq,), = db.execute("SELECT seq FROM experiment WHERE id = ?", (worker.id,)).fetchall()
            db.execute("UPDATE experiment SET state = 'queued' WHERE seq = ?", (seq,))
            other = self.attempt(db, seq, worker.id, 2)
        self.daemon.start()
        self.assert_problem(worker.report(), 409, "attempt-over")
        self.assert_problem(worker.call("PUT", "/files/best/x.npy", b"x"), 409, "attempt-over")
        # As if it had been at its end when it was lost.
        for place in (worker.id, worker.id + ".work-1"):
            shutil.copytree(os.path.join(self.data, "experiments", self.local), os.path.join(self.data, "experiments", place))
        other.begin()
        self.assertEqual(self.left(worker), [])
        self.assert_problem(other.report(end=self.success()), 422, "invalid-request", "is not here")
        self.assertEqual(self.show(worker.id)["state"], "running")


class Stops(Case):
    def test_cancelled_while_it_runs(self):
        worker = self.send()
        worker.begin()
        worker.put("best", "x.npy", b"x")
        worker.call("PUT", "/checkpoints/1/0", b"x")
        self.assertEqual(len(self.left(worker)), 2)
        self.assertEqual(self.call("POST", f"/v1/experiments/{worker.id}/cancel")[0], 202)
        for answer in (worker.report(), worker.call("GET", ""), worker.call("GET", "/data/train"), worker.call("GET", "/checkpoints/1/0"),
                       worker.call("PUT", "/checkpoints/1/0", b"x"), worker.call("PUT", "/files/best/x.npy", b"x")):
            self.assert_problem(answer, 409, "attempt-over")
        self.assertEqual(self.left(worker), [])
        self.assertEqual(self.call("DELETE", f"/v1/experiments/{worker.id}")[0], 204)
        self.assertEqual(worker.report()[0], 401)

    def test_cancelled_during_an_upload(self):
        worker = self.send()
        worker.begin()
        address = urllib.parse.urlparse(self.daemon.url)
        client = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        client.putrequest("PUT", "/v1/work/files/best/x.npy")
        client.putheader("Authorization", f"Bearer {worker.token}")
        client.putheader("Content-Length", "2000")
        client.endheaders()
        client.send(b"x" * 1000)
        for _ in range(100):
            if self.left(worker):
                break
            time.sleep(0.05)
        self.call("POST", f"/v1/experiments/{worker.id}/cancel")
        client.send(b"x" * 1000)
        answer = client.getresponse()
        self.assertEqual((answer.status, json.loads(answer.read())["type"]), (409, "/problems/attempt-over"))
        client.close()
        self.assertEqual(self.left(worker), [])

    def test_paused_while_it_runs(self):
        worker = self.send()
        worker.begin()
        self.assertEqual(self.call("POST", f"/v1/experiments/{worker.id}/pause")[0], 202)
        self.assertEqual(worker.report()[1]["stop"], "pause")
        worker.call("PUT", "/checkpoints/1/0", b"x")
        self.assertEqual(worker.report(checkpoint={"number": 1, "computed_ms": 5}, end={"state": "paused"})[0], 200)
        self.assertEqual(self.show(worker.id)["state"], "paused")
        self.assertEqual(self.left(worker), [worker.id + ".work-1.0"])
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.left(worker), [worker.id + ".work-1.0"])  # it will go on from there
        self.call("POST", f"/v1/experiments/{worker.id}/cancel")
        self.assertEqual(self.left(worker), [])

    def test_paused_while_it_waits(self):
        worker = self.send()
        self.call("POST", f"/v1/experiments/{worker.id}/pause")
        self.assert_problem(worker.begin(), 409, "attempt-over")
        self.assertEqual(self.show(worker.id)["state"], "paused")

    def test_back_in_the_queue(self):
        worker = self.send()
        worker.begin()
        self.assertEqual(worker.report(end={"state": "queued", "reason": "the node shuts down"})[0], 200)
        shown = self.show(worker.id)
        self.assertEqual((shown["state"], shown["queue"]["requeued_because"]), ("queued", "the node shuts down"))
        time.sleep(1.5)  # and no worker of the daemon's own takes it
        self.assertEqual(self.show(worker.id)["state"], "queued")


class Refused(Case):
    def test_reports(self):
        worker = self.send()
        self.assert_problem(worker.report(), 422, "invalid-request", "first report")
        worker.begin()
        figure = {"name": "a", "real": 1}
        histogram = {"split": "test", "layer": 0, "zero_count": 1, "total": 1, "maximum": 0, "counts": [0] * 58}
        tensor = {"epoch": "best", "name": "a", "dtype": "float32", "dimensions": 2, "rows": 1, "columns": 1}
        success = {"state": "succeeded", "result": [], "provenance": [], "histograms": [], "tensors": [tensor], "unit_tables": []}
        table = {"layer": 0, "split": "test", "units": 1, "classes": 1, "cells": 0}

        def epochs(**changes):
            return {"epochs": [{"epoch": 1, "figures": [figure], **changes}]}
        for members, what in (
                ({"unknown": 1}, "unknown"), ({"number": "3"}, "integer"), ({"number": 0}, "/number"), ({"number": 1.5}, "integer"),
                ({"number": -1}, "/number"), ({"begin": {"node": "h", "cores": 1}}, "begun before"),
                ({"begin": {"node": "a b", "cores": 1}}, "/begin"), ({"begin": {"node": "-x", "cores": 1}}, "/begin"),
                ({"begin": {"node": "h", "cores": 1, "job": "--me"}}, "/begin"), ({"begin": {"node": "h", "cores": 0}}, "cores"),
                ({"begin": {"node": "h", "cores": 2 ** 40}}, "cores"), ({"restart_from": 0}, "restart_from"), ({"restart_from": "1"}, "restart_from"),
                ({"progress": {}}, "/progress"), ({"progress": {**PROGRESS, "phase": 3}}, "phase"), ({"progress": {**PROGRESS, "step": -1}}, "negative"),
                ({"progress": {**PROGRESS, "epoch": 2 ** 32 + 1}}, "epoch"), ({"progress": {**PROGRESS, "more": 1}}, "more"),
                ({"epochs": {}}, "array"), ({"epochs": [{"epoch": 1, "figures": FIGURE}] * 65}, "65"), (epochs(epoch=0), "/epochs/0"),
                (epochs(epoch=2 ** 32 + 1), "/epochs/0"), (epochs(figures=[]), "no figures"), (epochs(figures=[figure] * 193), "193"),
                (epochs(figures=[figure, figure]), "clashes"), (epochs(figures=[figure, {"name": "a.b", "real": 1}]), "clashes"),
                (epochs(figures=[{"name": "a"}]), "one of"), (epochs(figures=[{"name": "a", "real": 1, "count": 1}]), "one of"),
                (epochs(figures=[{"name": "a", "real": "1"}]), "neither"), (epochs(figures=[{"name": "a", "count": -1}]), "count"),
                (epochs(figures=[{"name": "a", "count": 1.5}]), "count"), (epochs(figures=[{"name": "a", "text": ""}]), "bytes"),
                (epochs(figures=[{"name": "a", "text": "x" * 257}]), "257"), (epochs(figures=[{"name": "a", "text": "a\nb"}]), "control"),
                (epochs(figures=[{"name": "A b", "real": 1}]), "name"), (epochs(figures=[{"name": "", "real": 1}]), "name"),
                (epochs(figures=[{"name": "a..b", "real": 1}]), "name"), (epochs(figures=[{"name": "nonfinite", "real": 1}]), "name"),
                (epochs(figures=[{"name": "replay", "text": "match"}]), "name"), (epochs(figures=[1]), "object"),
                (epochs(histograms=[{**histogram, "counts": [0] * 57}]), "58"), (epochs(histograms=[{**histogram, "total": 2}]), "add up"),
                (epochs(histograms=[{**histogram, "counts": [2 ** 62] * 58}]), "above"), (epochs(histograms=[{**histogram, "zero_count": 2}]), "histograms/0"),
                (epochs(histograms=[{**histogram, "layer": 8}]), "histograms/0"), (epochs(histograms=[{**histogram, "split": "mine"}]), "split"),
                (epochs(histograms=[{**histogram, "maximum": -1}]), "maximum"), (epochs(histograms=[histogram] * 9), "9"),
                ({"log": [{"level": "info", "text": "x"}] * 65}, "65"), ({"log": [{"level": "loud", "text": "x"}]}, "level"),
                ({"log": [{"level": "info", "text": "x" * 501}]}, "501"), ({"log": [{"level": "info", "text": "a\x1bb"}]}, "control"),
                ({"checkpoint": {"number": 0, "computed_ms": 1}}, "checkpoint"), ({"checkpoint": {"number": 1, "computed_ms": -1}}, "checkpoint"),
                ({"checkpoint": {"number": 1, "computed_ms": 1}}, "rank 0's part"),
                ({"end": 1}, "/end"), ({"end": {"state": "running"}}, "running"), ({"end": {"state": "paused", "x": 1}}, "x"),
                ({"end": {"state": "queued"}}, "reason"), ({"end": {"state": "failed"}}, "problem"),
                ({"end": {"state": "failed", "problem": {"kind": "bored", "detail": "x"}}}, "bored"),
                ({"end": {"state": "failed", "problem": {"kind": "internal", "pointer": 1, "detail": "x"}}}, "pointer"),
                ({"end": {"state": "failed", "problem": {"kind": "internal", "detail": ""}}}, "bytes"),
                ({"end": {**success, "tensors": []}}, "empty"), ({"end": {**success, "tensors": [tensor, tensor]}}, "twice"),
                ({"end": {**success, "tensors": [tensor] * 60}}, "60"), ({"end": {**success, "tensors": [{**tensor, "rows": 0}]}}, "tensors/0"),
                ({"end": {**success, "tensors": [{**tensor, "rows": 2 ** 60}]}}, "tensors/0"), ({"end": {**success, "tensors": [{**tensor, "epoch": "mid"}]}}, "best"),
                ({"end": {**success, "tensors": [{**tensor, "name": "../../x"}]}}, "tensor"), ({"end": {**success, "tensors": [{**tensor, "dtype": "float64"}]}}, "float32"),
                ({"end": {**success, "tensors": [{**tensor, "dimensions": 3}]}}, "tensors/0"), ({"end": {**success, "tensors": [{**tensor, "dimensions": 1, "columns": 2}]}}, "tensor"),
                ({"end": {**success, "unit_tables": [table, table]}}, "has one"), ({"end": {**success, "unit_tables": [{**table, "layer": 8}]}}, "unit_tables/0"),
                ({"end": {**success, "unit_tables": [{**table, "units": 0}]}}, "unit_tables/0"), ({"end": success}, "best/a.npy is not here")):
            with self.subTest(members):
                self.assert_problem(worker.call("POST", "/reports", {"number": 2, "progress": PROGRESS, **members}), 422, "invalid-request", what)
        self.assertEqual(self.show(worker.id)["state"], "running")
        self.assertEqual(worker.call("GET", "")[1]["batch"], 1)
        self.assertEqual(worker.report()[0], 200)

    def test_bodies(self):
        worker = self.send()
        worker.begin()

        def post(body, **headers):
            return worker.call("POST", "/reports", body, **{"Content_Type": "application/json", **headers})
        self.assert_problem(post(b"{"), 400, "malformed-json")
        self.assert_problem(post(b'{"number": 2, "number": 2}'), 400, "malformed-json")
        self.assert_problem(post(b'{"number": 99999999999999999999}'), 400, "malformed-json")
        self.assert_problem(post(b'{"a": "\xff"}'), 400, "malformed-json")
        self.assert_problem(post(b"[" * 100000), 400, "malformed-json")
        self.assert_problem(post(b"[]"), 422, "invalid-request")
        self.assert_problem(post(b"{}" + b" " * 300000), 413, "too-large")
        self.assert_problem(post(b"{}", Content_Type="text/plain"), 415, "unsupported-media-type")
        self.assertEqual(worker.report()[0], 200)

    def test_uploads(self):
        worker = self.send(ranks=2)
        self.assert_problem(worker.call("PUT", "/files/best/x.npy", b"x"), 409, "conflict", "first report")
        worker.begin()
        for path in ("/files/worst/x.npy", "/files/best/x", "/files/best/.npy", "/files/best/..npy", "/files/best/.x.npy", "/files/best/X.npy",
                     "/files/best/a..b.npy", "/files/best/" + "x" * 80 + ".npy", "/files/best/put-a.npy"):
            self.assert_problem(worker.call("PUT", path, b"x"), 404, "not-found")
        for path in ("/checkpoints/0/0", "/checkpoints/1/2", "/checkpoints/-1/0", "/checkpoints/1/x", "/checkpoints/9999999999/0",
                     "/checkpoints/01/0", "/checkpoints/1/ 1".replace(" ", "%20")):
            self.assert_problem(worker.call("PUT", path, b"x"), 404, "not-found")
            self.assert_problem(worker.call("GET", path), 404, "not-found")
        self.assert_problem(worker.call("GET", "/checkpoints/1/0"), 404, "not-found", "not here")

        def digest(content):
            return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
        self.assert_problem(worker.call("PUT", "/checkpoints/1/0", b"x", Content_Digest=digest(b"y")), 422, "invalid-request", "SHA-256")
        self.assert_problem(worker.call("PUT", "/checkpoints/1/0", b"x", Content_Digest="md5=1"), 422, "invalid-request", "RFC 9530")
        self.assertEqual(self.left(worker), [])
        self.assert_problem(worker.call("PUT", "/checkpoints/51/0", b"x"), 422, "invalid-request", "more than 50 ahead")
        self.assertEqual(self.left(worker), [])
        self.assertEqual(worker.call("PUT", "/checkpoints/1/0", b"x", Content_Digest=digest(b"x"))[0], 204)
        # Cut off on its way.
        address = urllib.parse.urlparse(self.daemon.url)
        with socket.create_connection((address.hostname, address.port)) as sock:
            sock.sendall(b"PUT /v1/work/checkpoints/1/1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 99\r\n\r\nhalf" %
                         worker.token.encode())
            time.sleep(0.3)
        for _ in range(100):
            if len(self.left(worker)) == 1:
                break
            time.sleep(0.05)
        self.assertEqual(self.left(worker), [worker.id + ".work-1.0"])
        self.assert_problem(worker.report(checkpoint={"number": 1, "computed_ms": 1}), 422, "invalid-request", "rank 1's part")

    def test_the_two_newest_checkpoints_stay(self):
        worker = self.send(ranks=2)
        worker.begin()
        for number in (1, 2, 5):
            for rank in (0, 1):
                self.assertEqual(worker.call("PUT", f"/checkpoints/{number}/{rank}", b"%d %d" % (number, rank))[0], 204)
            if number == 5:  # while the one before is reported
                worker.call("PUT", "/checkpoints/6/0", b"6 0")
            self.assertEqual(worker.report(checkpoint={"number": number, "computed_ms": number})[0], 200)
        self.assertEqual(self.left(worker)[4:], [worker.id + ".work-6.0"])
        self.assertEqual(self.left(worker)[:4], [f"{worker.id}.work-{number}.{rank}" for number in (2, 5) for rank in (0, 1)])
        work = worker.call("GET", "")[1]
        self.assertEqual((work["checkpoint"], work["checkpoint_before"], work["computed_ms"]), (5, 2, 5))
        self.assertEqual(worker.call("GET", "/checkpoints/5/1"), (200, b"5 1"))
        self.assert_problem(worker.call("PUT", "/checkpoints/5/0", b"other"), 409, "conflict", "number 6")
        self.assert_problem(worker.report(checkpoint={"number": 5, "computed_ms": 9}), 422, "invalid-request", "not newer")
        problem = {"kind": "internal", "detail": "x"}
        worker.report(end={"state": "failed", "problem": problem})
        self.assertEqual(self.left(worker), [])

    def test_results_that_are_not_whole(self):
        worker = self.send()
        worker.begin()
        files, end = list(self.files()), self.success()
        for directory, name, content in files[1:]:
            worker.put(directory, name, content)
        self.assert_problem(worker.report(end=end), 422, "invalid-request", f"{files[0][0]}/{files[0][1]} is not here")
        directory, name, content = files[0]
        for broken in (content[:-1], content + b"x", b"x" * len(content), content[:60] + b"x" + content[61:], b""):
            worker.put(directory, name, broken)
            self.assert_problem(worker.report(end=end), 422, "invalid-request", "is not here")
        worker.put(directory, name, content)
        worker.put("units", "7.table.npy", content)
        self.assert_problem(worker.report(end=end), 422, "invalid-request", "have to be the same")
        self.assertEqual(self.show(worker.id)["state"], "running")

    def test_a_read_out_of_another_shape(self):
        worker = self.send()
        worker.begin()
        end = self.success()
        for name, rows, columns in (("probe.weight", 2, 8), ("probe.bias", 2, 100000)):
            end["tensors"].append({"epoch": "best", "name": name, "dtype": "float32", "dimensions": 2, "rows": rows, "columns": columns})
            head = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (rows, columns)
            head = b"\x93NUMPY\x01\x00v\x00" + head.ljust(117).encode() + b"\n"
            self.assertEqual(worker.put("best", name + ".npy", head + bytes(4 * rows * columns)), 204)
        for directory, name, content in self.files():
            worker.put(directory, name, content)
        self.assertEqual(worker.report(end=end)[0], 200)
        self.assert_problem(self.call("POST", f"/v1/experiments/{worker.id}/predict", {"samples": [[1, 2]]}), 500, "storage", "does not fit")

    def test_not_too_many_files(self):
        worker = self.send()
        worker.begin()
        for i in range(200):
            self.assertEqual(worker.put("best", f"x{i}.npy", b"x"), 204)
        self.assertEqual(worker.put("best", "x200.npy", b"x"), 413)
        worker.report(end={"state": "paused"})
        self.assertEqual(self.left(worker), [])


class Tokens(Case):
    OPTIONS = ("--wrong-tokens", "5")

    def test_one_way_each(self):
        worker = self.send()
        wrong = Worker(self, worker.id, "ovrw_" + "0" * 64)
        for token in ("ovrw_", "ovrd_" + "0" * 64, "", worker.token[:-1], worker.token.upper()):
            self.assert_problem(Worker(self, worker.id, token).call("GET", ""), 401, "unauthorized")
        self.assert_problem(self.call("GET", "/v1/work"), 401, "unauthorized", "workers")
        # Theirs opens nothing else, though nothing needs a token yet.
        theirs = {"Authorization": f"Bearer {worker.token}"}
        for method, path in (("GET", "/v1/experiments"), ("POST", f"/v1/experiments/{worker.id}/cancel"), ("GET", "/v1/me"), ("GET", "/metrics")):
            self.assert_problem(self.call(method, path, **theirs), 401, "unauthorized")
        self.assertEqual(self.call("GET", "/healthz", **theirs)[0], 200)
        self.assertEqual(self.show(worker.id)["state"], "queued")
        status, added = self.call("POST", "/v1/users", {"name": "ann", "role": "admin"})
        self.assertEqual(status, 201)
        hers = {"Authorization": f"Bearer {added['token']['token']}"}
        self.assert_problem(self.call("GET", "/v1/work", **hers), 401, "unauthorized", "workers")
        self.assert_problem(self.call("GET", "/v1/experiments", **theirs), 401, "unauthorized")
        self.assertEqual(self.call("GET", f"/v1/experiments/{worker.id}", **hers)[1]["state"], "queued")
        # Wrong ones are counted, and keep no right one out.
        statuses = [wrong.call("GET", "")[0] for _ in range(8)]
        self.assertEqual((statuses[0], statuses[-1]), (401, 429))
        self.assertEqual(worker.begin()[0], 200)
        self.assertEqual(self.call("GET", f"/v1/experiments/{worker.id}", **hers)[1]["state"], "running")


if __name__ == "__main__":
    main()
