"""The Python client against a real daemon: a day's work with it, and what it does when things break."""
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import ovrd
from proxy import Cutter
from support import BUILD, ROOT, Process, main

try:
    import numpy as np
except ImportError:
    np = None

SPEC = {"name": "small", "tags": ["t"], "dataset": {"generator": "sphere", "samples": 400},
        "model": {"kind": "mlp", "hidden": [12]}, "training": {"epochs": 3}}
ENDLESS = {**SPEC, "name": "endless", "training": {"epochs": 100000}}


class WithDaemon(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.process = Process("--workers", "2")
        cls.process.__enter__()
        cls.lab = ovrd.connect(cls.process.url, patience=10)
        cls.done = cls.lab.submit(SPEC).wait(60)

    @classmethod
    def tearDownClass(cls):
        cls.lab.close()
        cls.process.__exit__()

    def cutter(self, plan):
        cutter = Cutter(self.process.port, plan)
        self.addCleanup(cutter.close)
        return cutter


class Work(WithDaemon):
    def test_submit_wait_and_read(self):
        run = self.done
        self.assertEqual((run.state, run.name, run.spec["training"]["batch_size"]), ("succeeded", "small", 128))
        self.assertIsInstance(run.result["accuracy"], float)
        metrics = run.metrics()
        self.assertEqual([m["epoch"] for m in metrics], [1, 2, 3])
        self.assertEqual([m["epoch"] for m in run.metrics(from_epoch=2)], [2, 3])
        histogram = run.histogram(epoch=2)
        self.assertEqual(sum(histogram["counts"]) + histogram["zero_count"], histogram["total"])
        self.assertEqual(len(run.histograms()["series"]), 3)
        self.assertEqual(sorted(u["unit"] for u in run.units()), list(range(12)))
        rates = [u["firing_rate"] for u in run.units(sort="-firing_rate", limit=5)]
        self.assertEqual((len(rates), rates), (5, sorted(rates, reverse=True)))
        self.assertEqual(self.lab.compare(run.id + ":1", run.id + ":1")["ks"], 0)
        self.assertIn("state running", run.log())
        self.assertEqual(len(run.metrics_csv().splitlines()), 4)
        self.assertTrue(run.tiling())

    def test_a_spec_from_a_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(SPEC, file)
            file.flush()
            estimate = self.lab.estimate(file.name)
            self.assertEqual(estimate["estimate"]["parameters"], 4 * 12 + 13 * 10)
            self.assertEqual(self.lab.submit(file.name).name, "small")
        self.assertRaisesRegex(ovrd.OvrdError, "cannot read nowhere.json", self.lab.submit, "nowhere.json")

    def test_lists_go_over_pages(self):
        sent = [self.lab.submit({**SPEC, "tags": ["many"], "training": {"epochs": 1}}).id for _ in range(7)]
        pages = self.lab._pages("/v1/experiments", "experiments", None, {"tag": "many", "limit": 3})
        self.assertEqual(len(list(pages)), 7)
        self.assertEqual([e.id for e in self.lab.experiments(tag="many")], sent[::-1])
        self.assertEqual([e.id for e in self.lab.experiments(2, tag="many")], sent[:-3:-1])
        self.assertEqual(next(self.lab.experiments(1, tag="many")).spec["tags"], ["many"])
        self.assertEqual(list(self.lab.experiments(tag="none")), [])

    def test_units_go_over_pages(self):
        run = self.lab.submit({**SPEC, "model": {"kind": "mlp", "hidden": [1200]}, "training": {"epochs": 1}}).wait(60)
        self.assertEqual([u["unit"] for u in run.units()], list(range(1200)))

    def test_states(self):
        run = self.lab.submit(ENDLESS)
        self.assertRaises(ovrd.TimedOut, run.wait, 0.3)
        run.pause()
        while run.state != "paused":
            run.refresh()
        self.assertEqual(run.edit(name="later", tags=["x"]).name, "later")
        run.resume()
        run.cancel()
        with self.assertRaises(ovrd.Failed) as caught:
            run.wait(30)
        self.assertEqual((caught.exception.state, run.wait(check=False).state), ("cancelled", "cancelled"))
        run.delete()
        self.assertRaises(ovrd.NotFound, run.refresh)

    def test_edit_of_an_old_view_is_a_conflict(self):
        run, other = self.lab.experiment(self.done.id), self.lab.experiment(self.done.id)
        other.edit(notes="theirs")
        self.assertRaises(ovrd.Conflict, run.edit, notes="mine")

    def test_rerun_and_replay(self):
        again = self.done.rerun({"training": {"seed": 5}}).wait(60)
        self.assertEqual((again.spec["training"]["seed"], again.data["rerun_of"]), (5, self.done.id))
        self.assertEqual(self.done.replay().wait(60).result["replay"], "match")

    def test_sweep_becomes_rows(self):
        sweep = self.lab.sweep({"name": "s", "repeats": 2, "base": SPEC,
                                "grid": {"/loss/ovr/lambda": [0, 1e-4], "/loss/ovr/form": ["cosine"]}}).wait(60)
        rows, points = sweep.rows(), sweep.points()
        self.assertEqual(len(rows), 4)
        self.assertEqual(sorted({r["/loss/ovr/lambda"] for r in rows}), [0, 1e-4])
        self.assertEqual({r["/loss/ovr/form"] for r in rows}, {"cosine"})
        self.assertEqual({r["experiment"] for r in rows}, {e.id for e in sweep.experiments()})
        mean = sum(r["accuracy"] for r in rows if r["point"] == 1) / 2
        self.assertAlmostEqual(points[1]["accuracy"], mean)
        self.assertGreaterEqual(points[1]["accuracy.sd"], 0)
        self.assertIn("sparsity.near_zero", points[0])
        self.assertEqual([s.id for s in self.lab.sweeps()], [sweep.id])
        self.assertEqual(self.lab.get_sweep(sweep.id).points(), points)

    @unittest.skipUnless(np, "needs numpy")
    def test_arrays_both_ways(self):
        run = self.done
        names = [t["name"] for t in run.tensors()]
        model = run.model()
        self.assertTrue(set(names) <= set(model))
        self.assertEqual(json.loads(model.metadata["spec"])["name"], "small")
        for name in names:
            np.testing.assert_array_equal(run.weights(name), model[name])
        np.testing.assert_array_equal(run.weights(names[0], rows=(2, 5)), model[names[0]][2:5])
        samples = np.random.default_rng(1).normal(size=(9, 3))
        codes = run.encode(samples.astype(np.float32))
        by_hand = np.maximum(samples @ model["hidden.0.weight"].T + model["hidden.0.bias"], 0)
        np.testing.assert_allclose(codes, by_hand, atol=1e-5)
        predicted = run.predict(samples)
        self.assertEqual(list(run.probabilities(samples).argmax(1)), predicted["classes"])
        self.assertEqual(run.encode("test").shape, (80, 12))
        self.assertAlmostEqual(run.predict("test")["accuracy"], run.result["accuracy"])

    @unittest.skipUnless(np, "needs numpy")
    def test_upload_of_every_kind(self):
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
        for split in ("train", "test"):
            self.lab.upload("arrays", split, x, y)
        self.assertEqual(self.lab.dataset("arrays")["splits"]["train"]["samples"], 60)
        with tempfile.TemporaryDirectory() as directory:
            table = os.path.join(directory, "t.csv")
            np.savetxt(table, np.column_stack([x, y]), delimiter=",", fmt="%g")
            self.lab.upload("table", "train", table, label="last")
        with open(os.devnull, "rb") as nothing:
            self.assertRaises(ovrd.Invalid, self.lab.upload, "empty", "train", nothing, format="cifar10")
        records = rng.integers(0, 10, (30, 3073)).astype(np.uint8).tobytes()
        self.lab.upload("pictures", "train", io.BytesIO(records), format="cifar10")
        self.lab.upload("pictures", "test", records, format="cifar10")
        self.assertEqual({d["name"] for d in self.lab.datasets()}, {"arrays", "table", "pictures"})
        run = self.lab.submit({"dataset": {"name": "pictures"}, "model": {"kind": "kmeans", "hidden": [3]},
                               "training": {"epochs": 1}, "probe": None}).wait(60)
        self.assertEqual(run.filters_png()[:4], b"\x89PNG")
        self.lab.delete_dataset("table")
        self.assertRaises(ovrd.NotFound, self.lab.dataset, "table")

    def test_faults_are_all_there(self):
        with self.assertRaises(ovrd.Invalid) as caught:
            self.lab.submit({"dataset": {"generator": "sphere"}, "model": {"kind": "mlp", "hidden": [-3]}, "x": 1})
        error = caught.exception
        self.assertEqual((error.status, error.type), (422, "/problems/invalid-spec"))
        self.assertEqual({f.pointer for f in error.faults}, {"/model/hidden/0", "/x"})
        self.assertIn("/model/hidden/0: must be", str(error))
        self.assertRaises(ovrd.NotFound, self.lab.experiment, "000000000000")
        self.assertRaises(ovrd.OvrdError, self.lab.experiment, "..")
        self.assertRaises(ovrd.OvrdError, self.lab.submit, {"x": float("nan")})

    def test_the_other_routes(self):
        self.assertIn("kernel", self.lab.version()["blas"])
        self.assertEqual(self.lab.schema()["type"], "object")
        self.assertEqual(self.lab.request("GET", "/healthz").status, 200)


class Streams(WithDaemon):
    def test_events_to_the_end(self):
        run = self.lab.submit({**SPEC, "training": {"epochs": 5}})
        seen = [e for e in run.stream() if e.name in ("state", "epoch")]
        self.assertEqual([e.data["epoch"] for e in seen if e.name == "epoch"], [1, 2, 3, 4, 5])
        self.assertEqual([e.data["state"] for e in seen if e.name == "state"], ["queued", "running", "succeeded"])
        later = [e for e in run.stream(after=seen[2].id) if e.name in ("state", "epoch")]
        self.assertEqual(later, seen[3:])
        self.assertEqual(list(run.stream(after=seen[-1].id)), [])

    def test_a_cut_stream_goes_on_without_gap_or_doubles(self):
        run = self.lab.submit({**SPEC, "training": {"epochs": 40}}).wait(60)
        whole = [e for e in run.stream() if e.id]
        cutter = self.cutter(lambda n: 700 + 1300 * n if n < 6 else None)
        cut = list(ovrd.connect(cutter.url, patience=5).experiment(run.id).stream())  # the look-up is cut, too
        self.assertEqual([e for e in cut if e.id], whole)
        self.assertGreater(cutter.n, 6)
        self.assertIn("Last-Event-ID: ", cutter.seen[-1])

    def test_a_stream_that_stays_lost(self):
        run = self.lab.submit(ENDLESS)
        cutter = self.cutter(lambda n: "before")
        handle = ovrd.Experiment(ovrd.connect(cutter.url, patience=0.5), run.data)
        self.assertRaises(ovrd.Unreachable, list, handle.stream())
        run.cancel()


class Trouble(WithDaemon):
    def test_a_lost_answer_makes_no_second_experiment(self):
        before = len(list(self.lab.experiments()))
        for how in ("before", "after", 20):
            cutter = self.cutter(lambda n, how=how: how if n < 2 else None)
            run = ovrd.connect(cutter.url).submit(SPEC)
            self.assertEqual((run.name, cutter.n), ("small", 3))
            keys = {re.search(r"Idempotency-Key: (\S+)", head)[1] for head in cutter.seen}
            self.assertEqual(len(keys), 1)
        self.assertEqual(len(list(self.lab.experiments())), before + 3)

    def test_what_must_not_be_sent_twice_is_not(self):
        cutter = self.cutter(lambda n: "after" if n < 1 else None)
        handle = ovrd.Experiment(ovrd.connect(cutter.url), self.lab.experiment(self.done.id).data)
        self.assertRaises(ovrd.Unreachable, handle.edit, notes="x")
        self.assertEqual(cutter.n, 1)

    def test_a_deletion_whose_answer_was_lost(self):
        run = self.lab.submit(SPEC).wait(60)
        cutter = self.cutter(lambda n: "after" if n < 1 else None)
        ovrd.Experiment(ovrd.connect(cutter.url), run.data).delete()
        self.assertEqual(cutter.n, 2)
        self.assertRaises(ovrd.NotFound, run.delete)

    def test_a_key_of_the_callers(self):
        first = self.lab.submit(SPEC, key="mine")
        self.assertEqual(self.lab.submit(SPEC, key="mine").id, first.id)
        self.assertRaises(ovrd.Invalid, self.lab.submit, ENDLESS, key="mine")

    def test_a_restart_of_the_daemon_is_waited_for(self):
        with Process("--checkpoint", "1") as process:
            lab = ovrd.connect(process.url, patience=20)
            run = lab.submit({**SPEC, "training": {"epochs": 3000}})
            ended = threading.Thread(target=run.wait, args=(120,), daemon=True)
            stream = threading.Thread(target=lambda: seen.extend(lab.experiment(run.id).stream()), daemon=True)
            seen = []
            ended.start()
            stream.start()
            time.sleep(0.3)
            process.stop(signal.SIGKILL)
            time.sleep(0.5)
            process.start()
            ended.join(120)
            stream.join(120)
            self.assertEqual(run.state, "succeeded")
            self.assertEqual([e.data["epoch"] for e in seen if e.name == "epoch"], list(range(1, 3001)))

    def test_nobody_there(self):
        started = time.monotonic()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.assertRaises(ovrd.Unreachable, ovrd.connect(f"http://127.0.0.1:{port}", patience=0.3).version)
        self.assertLess(time.monotonic() - started, 2)

    def test_silence_ends(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            lab = ovrd.connect("http://127.0.0.1:%d" % server.getsockname()[1], timeout=0.2, patience=0.3)
            self.assertRaises(ovrd.Unreachable, lab.version)

    def answering(self, *answers):
        """A server that gives these, one a connection."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        seen = []

        def run():
            for answer in answers:
                client, _ = server.accept()
                seen.append(client.recv(65536))
                client.sendall(answer)
                client.close()

        threading.Thread(target=run, daemon=True).start()
        return "http://127.0.0.1:%d" % server.getsockname()[1], seen

    def test_busy_is_tried_again(self):
        busy = b'HTTP/1.1 503 x\r\nRetry-After: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}'
        good = b'HTTP/1.1 200 x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{"a":[1]}'
        url, seen = self.answering(busy, good)
        started = time.monotonic()
        self.assertEqual(ovrd.connect(url).version(), {"a": [1]})
        self.assertGreater(time.monotonic() - started, 0.9)
        url, seen = self.answering(busy.replace(b"503", b"429").replace(b"Retry-After: 1\r\n", b""))
        self.assertRaises(ovrd.Busy, ovrd.connect(url).version)

    def test_no_ovrd(self):
        url, _ = self.answering(b"HTTP/1.1 200 x\r\nContent-Length: 6\r\n\r\n<html>")
        self.assertRaisesRegex(ovrd.OvrdError, "is this the address of an ovrd", ovrd.connect(url).version)
        for bad in ("ftp://x", "http://", "http://x?y=1"):
            self.assertRaises(ovrd.OvrdError, ovrd.connect, bad)


class People(unittest.TestCase):
    def test_tokens_and_tls(self):
        with tempfile.TemporaryDirectory() as directory:
            key, certificate, token = (os.path.join(directory, name) for name in ("key", "certificate", "token"))
            try:
                subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                                "-nodes", "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=localhost",
                                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
            except FileNotFoundError:
                self.skipTest("needs openssl")
            with Process("--admin-token-file", token, "--tls-cert", certificate, "--tls-key", key) as process:
                self.assertTrue(process.url.startswith("https://"))
                lab = ovrd.connect(process.url, token_file=token, ca_file=certificate)
                self.assertEqual(lab.me()["role"], "admin")
                run = lab.submit(SPEC)
                self.assertEqual([e.data["state"] for e in run.stream() if e.name == "state"][-1], "succeeded")
                self.assertEqual(run.wait().data["owner"], "admin")
                made = lab.request("POST", "/v1/users/admin/tokens", json_body={"label": "r", "scope": "read"}).json()
                reader = ovrd.connect(process.url, token=made["token"], ca_file=certificate)
                self.assertEqual(next(reader.experiments(owner="me")).id, run.id)
                with self.assertRaises(ovrd.Denied) as caught:
                    reader.submit(SPEC)
                self.assertEqual((caught.exception.status, caught.exception.type), (403, "/problems/forbidden"))
                for token in (None, "ovrd_wrong"):
                    with self.assertRaises(ovrd.Denied) as caught:
                        ovrd.connect(process.url, token=token, ca_file=certificate).me()
                    self.assertEqual(caught.exception.status, 401)
                stranger = ovrd.connect(process.url, token="x", patience=5)
                self.assertRaisesRegex(ovrd.Unreachable, "certificate is not trusted", stranger.version)
                self.assertRaisesRegex(ovrd.Unreachable, "certificate is not trusted",
                                       list, ovrd.Experiment(stranger, run.data).stream())


class Configuration(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        for name in [n for n in os.environ if n.startswith("OVRD_")]:
            del os.environ[name]
        os.environ["XDG_CONFIG_HOME"] = self.directory.name
        os.mkdir(os.path.join(self.directory.name, "ovrd"))

    def write(self, name, text):
        path = os.path.join(self.directory.name, "ovrd", name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o600)
        return path

    def token(self, **given):
        return ovrd.connect(**given).transport._headers.get("Authorization")

    def test_what_wins(self):
        self.assertEqual(ovrd.connect().transport.url, "http://127.0.0.1:8080")
        self.assertIsNone(self.token())
        self.write("token", "of-home\n")
        self.assertEqual(self.token(), "Bearer of-home")
        other = self.write("other", "of-config\n")
        self.write("config", f"# mine\nhost = https://trainer:8443/ovrd/\n\ntoken-file = {other}\n")
        self.assertEqual(ovrd.connect().transport.url, "https://trainer:8443/ovrd")
        self.assertEqual(self.token(), "Bearer of-config")
        os.environ.update(OVRD_URL="http://there", OVRD_TOKEN="of-environment")
        self.assertEqual(ovrd.connect().transport.url, "http://there")
        self.assertEqual(self.token(), "Bearer of-environment")
        self.assertEqual(self.token(token="of-call"), "Bearer of-call")
        self.assertEqual(self.token(token_file=other), "Bearer of-config")
        self.assertEqual(ovrd.connect("http://here").transport.url, "http://here")

    def test_what_is_wrong(self):
        self.write("config", "host http://x\n")
        self.assertRaisesRegex(ovrd.OvrdError, "line 1: must be key = value", ovrd.connect)
        self.write("config", "token-file = /nowhere\n")
        self.assertRaisesRegex(ovrd.OvrdError, "cannot read the token in /nowhere", ovrd.connect)
        self.assertRaises(ovrd.OvrdError, ovrd.connect, token="two\nlines")
        os.chmod(self.write("open", "secret"), 0o644)
        self.assertRaisesRegex(ovrd.OvrdError, "others can read", ovrd.connect,
                               token_file=os.path.join(self.directory.name, "ovrd", "open"))


class Arrays(unittest.TestCase):
    @unittest.skipUnless(np, "needs numpy")
    def test_npy_round_trips(self):
        for array in (np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((0, 3)), np.array([1, 2], np.int64)):
            out = io.BytesIO()
            np.save(out, array)
            np.testing.assert_array_equal(ovrd.read_npy(out.getvalue()), array)
            np.testing.assert_array_equal(np.load(io.BytesIO(ovrd.write_npy(array))), array)

    def test_without_numpy(self):
        """In a process of its own that can't import it."""
        program = """if 1:
            import array, sys
            sys.modules["numpy"] = None
            import ovrd
            flat = array.array("f", [1, 2, 3, 4, 5, 6])
            sent = ovrd.write_npy(memoryview(flat).cast("B").cast("f", [2, 3]))
            got = ovrd.read_npy(sent)
            assert type(got) is memoryview and got.shape == (2, 3) and got[1, 2] == 6 and got.tolist()[0] == [1, 2, 3]
            lab = ovrd.connect(sys.argv[1])
            run = lab.submit(%r).wait(60)
            assert run.weights("hidden.0.weight").shape == (12, 3)
            assert run.encode([[0.0, 0.0, 1.0]]).shape == run.encode(memoryview(array.array("f", [0, 0, 1])).cast("B").cast("f", [1, 3])).shape
            assert set(run.model()) >= {"hidden.0.weight"}
        """ % (SPEC,)
        with Process() as process:
            done = subprocess.run([sys.executable, "-c", program, process.url], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_damaged_files(self):
        good = b"\x93NUMPY\x01\x00" + struct.pack("<H", 54) + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"[:54]
        for content in (b"", b"\x93NUMPY\x01\x00\xff\xff{", good, b"{}"):
            self.assertRaises(ovrd.OvrdError, ovrd.read_npy, content)
            self.assertRaises(ovrd.OvrdError, ovrd.read_safetensors, content)


class Types(unittest.TestCase):
    def test_mypy(self):
        package = os.path.join(ROOT, "clients", "python")
        try:
            done = subprocess.run(["/usr/bin/mypy", "--cache-dir", os.path.join(BUILD, "mypy")], cwd=package,
                                  capture_output=True, text=True)
        except FileNotFoundError:
            self.skipTest("needs mypy")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    main()
