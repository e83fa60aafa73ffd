"""ovr-worker at work for a daemon: whatever happens to the network, to it, or to the daemon's answers, what it reports is
what the daemon would have stored of a run of its own, and nothing twice; or it stops and says why."""
import os
import random
import shutil
import signal
import ssl
import subprocess
import time
import unittest
from typing import Optional

import numpy
from support import BUILD, main
from workdaemon import ONE_RANK, TOKEN, Daemon, Reference, directory, reference, start


def spec(kind, units, epochs=5, samples=1000, probe=True, **more):
    made = {"name": "worker", "model": {"kind": kind, "hidden": [units]},
            "dataset": {"generator": "sphere", "samples": samples, "test_samples": 200, "classes": 3, "seed": 7},
            "loss": {"ovr": {"lambda": 1e-5}}, "training": {"epochs": epochs, "batch_size": 128, "seed": 1},
            "probe": {"kind": "logistic_regression", "epochs": 2, "batch_size": 32} if probe else None}
    return {**made, **more}


ENCODER = spec("ovr_encoder", 1601)
MLP = spec("mlp", 1100, probe=False)
EPOCHS = 150 if os.path.basename(BUILD) == "build" else 30
LONG = spec("ovr_encoder", 1100, epochs=EPOCHS, samples=5000)  # some seconds, also with sanitizers
OURS = {"seconds", "threads", "ranks"}  # figures that two runs need not share


def values(figures):
    return [(f["name"], f.get("real", f.get("count", f.get("text")))) for f in figures if f["name"] not in OURS]


def known(figures):
    return [(name, value) for name, value in figures if name not in OURS]


def histograms(list):
    return [(h["layer"], h["split"], h["zero_count"], h["total"], h["maximum"], tuple(h["counts"])) for h in list]


def find_rank(mpirun, rank):
    """The process of a rank."""
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == mpirun and b"OMPI_COMM_WORLD_RANK=%d" % rank in environment:
            return int(name)
    raise AssertionError(f"there is no rank {rank}")


class Case(unittest.TestCase):
    maxDiff = 2000

    def work(self, daemon, status=0, ranks=0, timeout=120, meanwhile=None, order=None, **environment):
        """Runs the worker to its end; its standard error."""
        with directory() as place:
            temporary = os.path.join(place, "tmp")
            os.mkdir(temporary)
            path = order or daemon.order(place)
            process = start(path, ranks, TMPDIR=temporary, **environment)
            try:
                if meanwhile:
                    meanwhile(process)
                output, errors = process.communicate(timeout=timeout)
            finally:
                process.kill()
            left = [] if ranks or process.returncode < 0 else os.listdir(temporary)
        self.assertEqual(process.returncode, status, errors)
        self.assertEqual(left, [])
        self.assertEqual(output, "")
        self.assertNotIn(TOKEN, errors)
        if daemon:
            self.assertEqual(daemon.breaches, [])
        return errors

    def check_same(self, daemon):
        """What was reported, with what the daemon stored of its own run."""
        known_by, end = daemon.reference, daemon.end
        self.assertEqual(end["state"], "succeeded", end)
        self.assertEqual(sorted(daemon.epochs), sorted(n for n in known_by.figures if n > 0))
        for number, epoch in daemon.epochs.items():
            self.assertEqual(values(epoch["figures"]), known(known_by.figures[number]), number)
            self.assertEqual(histograms(epoch["histograms"]), known_by.histograms[number])
        self.assertEqual(values(end["result"]), known(known_by.figures[0]))
        self.assertEqual(values(end["provenance"]), known(known_by.figures[-1]))
        self.assertEqual(histograms(end["histograms"]), known_by.histograms[0])
        tensors = [tuple(t[k] for k in ("epoch", "name", "dtype", "dimensions", "rows", "columns")) for t in end["tensors"]]
        self.assertEqual(sorted(tensors), sorted(known_by.tensors))
        tables = [tuple(t[k] for k in ("layer", "split", "units", "classes", "cells")) for t in end["unit_tables"]]
        self.assertEqual(tables, known_by.tables)
        self.assertEqual({n: hash(f) for n, f in daemon.files.items()}, {n: hash(f) for n, f in known_by.files.items()})


class SameAsLocal(Case):
    def check(self, document, ranks=0, **work):
        with Daemon(reference(document), ranks=max(ranks, 1), **work) as daemon:
            self.work(daemon, ranks=ranks)
            self.check_same(daemon)

    def test_encoder(self):
        self.check(ENCODER)

    def test_encoder_with_threads(self):
        self.check(ENCODER, threads=3)

    def test_mlp(self):
        self.check(MLP)

    def test_deep_mlp(self):
        self.check({**MLP, "model": {"kind": "mlp", "hidden": [300, 200]}})

    def test_kmeans(self):
        document = spec("kmeans", 600, epochs=3)
        del document["loss"]
        self.check(document)

    def test_what_has_no_epochs(self):
        document = spec("random_projection", 700)
        for section in "loss", "training":
            del document[section]
        self.check(document)

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_encoder_of_two_ranks(self):
        self.check(ENCODER, ranks=2)

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_mlp_of_two_ranks(self):
        self.check(MLP, ranks=2, threads=2)


class Data(Case):
    reference: Optional[Reference] = None

    def setUp(self):
        if not Data.reference:
            numbers = numpy.random.default_rng(3)
            splits = {name: (numbers.normal(size=(n, 20)).astype("float32"), numbers.integers(0, 4, n))
                      for name, n in (("train", 1500), ("test", 300))}
            Data.reference = Reference(spec("ovr_encoder", 700, dataset={"name": "mine"},
                                            preprocess=[{"standardize": True}]), splits)

    def fetched(self, daemon):
        return [path for method, path, _ in daemon.seen if "/data/" in path]

    def test_over_the_network(self):
        with Daemon(self.reference) as daemon:
            self.work(daemon)
            self.check_same(daemon)
            self.assertEqual(self.fetched(daemon), ["/v1/work/data/train", "/v1/work/data/test"])

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_each_rank_for_itself(self):
        with Daemon(self.reference, ranks=2) as daemon:
            self.work(daemon, ranks=2)
            self.check_same(daemon)
            self.assertEqual(len(self.fetched(daemon)), 4)

    def shared(self, place, damaged=False):
        os.mkdir(os.path.join(place, "datasets"))
        for name, split in self.reference.splits.items():
            with open(os.path.join(place, "datasets", self.reference.data[name]["sha256"]), "wb") as file:
                file.write(split[:-1] + b"\xff" if damaged else split)

    def test_from_a_shared_directory(self):
        with directory() as place:
            self.shared(place)
            with Daemon(self.reference, data_dir=place) as daemon:
                self.work(daemon)
                self.check_same(daemon)
                self.assertEqual(self.fetched(daemon), [])

    def test_a_shared_directory_with_other_bytes(self):
        with directory() as place:
            self.shared(place, damaged=True)
            with Daemon(self.reference, data_dir=place) as daemon:
                self.work(daemon)
                self.check_same(daemon)
                self.assertEqual(len(self.fetched(daemon)), 2)

    def test_a_shared_directory_that_is_not_there(self):
        with Daemon(self.reference, data_dir="/nowhere") as daemon:
            self.work(daemon)
            self.check_same(daemon)

    def test_damaged_once(self):
        damaged = []

        def plan(method, path, n):
            if path.endswith("/data/test") and not damaged:
                damaged.append(n)
                return "damage"

        with Daemon(self.reference, plan) as daemon:
            self.work(daemon)
            self.check_same(daemon)
            self.assertEqual(len(self.fetched(daemon)), 3)

    def test_always_damaged(self):
        with Daemon(self.reference, lambda method, path, n: "damage" if path.endswith("/data/train") else None) as daemon:
            self.work(daemon)
            self.assertEqual(daemon.end["problem"]["kind"], "storage")
            self.assertIn("the train split that came from the daemon has not the SHA-256", daemon.end["problem"]["detail"])


class Network(Case):
    def check_with(self, plan, document=ENCODER, **more):
        with Daemon(reference(document), plan, **more) as daemon:
            self.work(daemon)
            self.check_same(daemon)
            return daemon

    def test_answers_are_lost_after_they_were_taken(self):
        seen = {}

        def plan(method, path, n):  # of each thing at first
            seen[path] = seen.get(path, 0) + 1
            return "lose" if seen[path] == 1 else None

        self.assertGreaterEqual(self.check_with(plan).repeats, 1)

    def test_every_other_request_fails_somehow(self):
        chance = random.Random(5)
        kinds = ["reset", "lose", 503, 500, 502, 429, "slow"]
        self.check_with(lambda method, path, n: chance.choice(kinds) if n % 2 == 0 else None)

    def test_retry_after_is_waited_for(self):
        daemon = self.check_with(lambda method, path, n: 429 if n == 0 else None)
        self.assertGreaterEqual(daemon.seen[1][2] - daemon.seen[0][2], 0.95)

    def test_training_goes_on_while_the_daemon_is_away(self):
        """All reports after the first are refused for longer than training takes; then all epochs come."""
        until = []

        def plan(method, path, n):
            if "reports" in path:
                until.append(time.monotonic())
                return 500 if len(until) > 1 and until[-1] < until[0] + 3 else None

        daemon = self.check_with(plan, spec("ovr_encoder", 600, epochs=100, samples=500))
        self.assertLess(daemon.work["batch"], 10)

    def test_over(self):
        for status in 409, 401:
            with self.subTest(status), Daemon(reference(LONG), lambda method, path, n, s=status: s if n == 4 else None) as daemon:
                self.assertIn("attempt 1 is over", self.work(daemon, status=3))
                self.assertIsNone(daemon.end)
                self.assertEqual(len(daemon.seen), 5)  # and nothing after it

    def test_over_at_the_first_call(self):
        with Daemon(reference(ENCODER), lambda method, path, n: 401) as daemon:
            self.assertIn("401", self.work(daemon, status=3))

    def test_over_while_the_result_is_sent(self):
        with Daemon(reference(ENCODER), lambda method, path, n: 409 if "files/last" in path else None) as daemon:
            self.work(daemon, status=3)
            self.assertIsNone(daemon.end)

    def test_the_lease_runs_out(self):
        for fault in "hang", "reset", 503:
            with self.subTest(fault), Daemon(
                    reference(LONG), lambda method, path, n, f=fault: f if n >= 3 else None, lease_seconds=2) as daemon:
                begun = time.monotonic()
                self.assertIn("ends without a result", self.work(daemon, status=4))
                self.assertLess(time.monotonic() - begun, 5)
                self.assertIsNone(daemon.end)

    def test_the_lease_is_renewed_while_nothing_happens(self):
        """Preparing can take longer than the lease: here it is the data that do."""
        if not Data.reference:
            Data("test_over_the_network").setUp()
        slow = []

        def plan(method, path, n):
            if "/data/" in path:
                slow.append(time.sleep(2.5))

        with Daemon(Data.reference, plan, lease_seconds=2) as daemon:
            self.work(daemon)
            self.check_same(daemon)
            self.assertEqual(len(slow), 2)

    def test_no_daemon(self):
        with directory() as place:
            order = Daemon(reference(ENCODER))
            path = order.order(place)
            order.server_close()
            begun = time.monotonic()
            errors = self.work(None, status=1, order=path)
            self.assertIn(f"/v1/work of the daemon at {order.url}: ", errors)
            self.assertIn("Failed to connect", errors)
            self.assertGreater(time.monotonic() - begun, 10)  # it might only have been starting

    def test_reports_that_are_refused(self):
        for status in 413, 422:
            with self.subTest(status), Daemon(
                    reference(LONG), lambda method, path, n, s=status: s if n == 4 else None) as daemon:
                self.assertIn(f"it answers {status}: not now", self.work(daemon, status=1))
                self.assertEqual(len(daemon.seen), 5)

    def test_something_else_than_a_daemon(self):
        with Daemon(reference(ENCODER)) as daemon:
            daemon.work = {"hello": "world"}
            self.assertIn("what is to be done can't be read", self.work(daemon, status=1))

    def test_tls(self):
        with directory() as place:
            key, certificate = os.path.join(place, "key"), os.path.join(place, "certificate")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                            "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=ovrd",
                            "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            with Daemon(reference(ENCODER), tls=context) as daemon:
                self.assertIn("certificate", self.work(daemon, status=1))
                self.assertEqual(daemon.seen, [])
                self.work(daemon, order=daemon.order(place, certificate))
                self.check_same(daemon)


class Interrupted(Case):
    """A worker that is stopped in the middle, and another one that goes on where it was."""

    def daemon(self, tell=None, **work):
        return Daemon(reference(LONG), tell=tell, checkpoint_seconds=0.1, **work)

    def go_on(self, daemon, from_checkpoint=True, ranks=0):
        restarts, epochs = len(daemon.restarts), len(daemon.epochs)
        daemon.tell = None
        daemon.next_attempt()
        self.work(daemon, ranks=ranks)
        self.check_same(daemon)
        self.assertEqual(len(daemon.restarts), restarts + 1)
        first = daemon.restarts[-1]
        self.assertTrue(1 < first <= epochs + 1 if from_checkpoint else first == 1, first)
        if from_checkpoint:
            self.assertIn(f"goes on in epoch {first}", daemon.lines)

    def stop_with(self, stop):
        """At the first checkpoint on the way."""
        return lambda daemon, report: stop if daemon.work["checkpoint"] else None

    def pause(self, ranks=0):
        with self.daemon(self.stop_with("pause"), ranks=max(ranks, 1)) as daemon:
            self.work(daemon, ranks=ranks)
            self.assertEqual(daemon.end, {"state": "paused"})
            self.assertLess(len(daemon.epochs), EPOCHS)
            self.assertGreaterEqual(daemon.work["checkpoint"], 2)
            self.go_on(daemon, ranks=ranks)

    def test_paused(self):
        self.pause()

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_two_ranks_paused(self):
        self.pause(ranks=2)

    def test_paused_at_once(self):
        with self.daemon(lambda daemon, report: "pause") as daemon:
            self.work(daemon)
            self.assertEqual(daemon.end, {"state": "paused"})

    def test_cancelled(self):
        with Daemon(reference(LONG)) as daemon:
            daemon.cancel = lambda: daemon.work["batch"] > 1
            self.assertIn("was cancelled", self.work(daemon, status=3))
            self.assertIsNone(daemon.end)
            self.assertEqual(daemon.parts, {})  # nothing is saved where nobody will go on

    def kill(self, daemon, number, after="checkpoint", ranks=0, rank=0):
        def meanwhile(process):
            while not daemon.work[after]:
                time.sleep(0.02)
                self.assertIsNone(process.poll())
            os.kill(find_rank(process.pid, rank) if ranks else process.pid, number)

        killed = 137 if ranks else -signal.SIGKILL
        return self.work(daemon, status=killed if number == signal.SIGKILL else 0, ranks=ranks, meanwhile=meanwhile)

    def test_terminated(self):
        with self.daemon() as daemon:
            self.kill(daemon, signal.SIGTERM)
            self.assertEqual(daemon.end["state"], "queued")
            self.assertIn("its node was given to others", daemon.end["reason"])
            self.assertGreaterEqual(daemon.work["checkpoint"], 2)
            self.go_on(daemon)

    def test_killed(self):
        with self.daemon() as daemon:
            self.kill(daemon, signal.SIGKILL)
            self.go_on(daemon)

    def test_killed_before_its_first_checkpoint(self):
        with self.daemon() as daemon:
            self.kill(daemon, signal.SIGKILL, after="batch")
            self.go_on(daemon, from_checkpoint=False)

    def test_killed_twice_and_the_newest_damaged(self):
        with self.daemon() as daemon:
            self.kill(daemon, signal.SIGKILL, after="checkpoint_before")
            newest = daemon.work["checkpoint"]
            part = daemon.parts[newest, 0]
            daemon.parts[newest, 0] = part[:-1000] + b"x" + part[-999:]
            self.go_on(daemon)
            self.assertIn(f"checkpoint {newest} is of no use: it is damaged", daemon.lines)

    def test_killed_and_no_checkpoint_is_good(self):
        with self.daemon() as daemon:
            self.kill(daemon, signal.SIGKILL, after="checkpoint_before")
            newest = daemon.work["checkpoint"]
            daemon.parts[newest, 0] = b"no checkpoint"
            del daemon.parts[newest - 1, 0]
            self.go_on(daemon, from_checkpoint=False)
            self.assertIn(f"checkpoint {newest} is of no use: it is no checkpoint", daemon.lines)

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_one_of_two_ranks_killed_and_the_newest_part_of_it_damaged(self):
        with self.daemon(ranks=2) as daemon:
            self.kill(daemon, signal.SIGKILL, after="checkpoint_before", ranks=2, rank=1)
            newest = daemon.work["checkpoint"]
            daemon.parts[newest, 1] = daemon.parts[newest, 1][:-1]
            self.go_on(daemon, ranks=2)
            self.assertIn(f"checkpoint {newest} is of no use: rank 1: it has not the size that it should have",
                          daemon.lines)

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_two_ranks_terminated(self):
        with self.daemon(ranks=2) as daemon:
            self.kill(daemon, signal.SIGTERM, ranks=2)
            self.assertEqual(daemon.end["state"], "queued")
            self.assertEqual({number for number, _ in daemon.parts}, {1, 2})
            self.go_on(daemon, ranks=2)

    def test_checkpoints_that_do_not_arrive(self):
        """They cost nothing but themselves."""
        with Daemon(reference(LONG), lambda method, path, n: 500 if "checkpoints" in path and n < 40 else None,
                    checkpoint_seconds=1, lease_seconds=3) as daemon:
            self.work(daemon)
            self.check_same(daemon)


class Failures(Case):
    def failed(self, document, **work):
        """The problem that it reports. A spec that a daemon has completed, with something else in it."""
        with Daemon(document if isinstance(document, Reference) else reference(document), **work) as daemon:
            self.work(daemon, status=0)
            self.assertEqual(daemon.end["state"], "failed")
            return daemon.end["problem"]

    def changed(self, document, old, new):
        made = Reference.__new__(Reference)
        made.__dict__.update(reference(document).__dict__)
        made.spec = made.spec.replace(old, new)
        self.assertNotEqual(made.spec, reference(document).spec)
        return made

    def test_diverged(self):
        problem = self.failed(self.changed(MLP, '"learning_rate":0.001', '"learning_rate":1e+30'))
        self.assertEqual((problem["kind"], problem["pointer"]), ("diverged", "/optimizer/learning_rate"))

    def test_time_limit(self):
        problem = self.failed(self.changed(LONG, '"time_limit_seconds":null', '"time_limit_seconds":9.5'), computed_ms=9000)
        self.assertEqual((problem["kind"], problem["pointer"]), ("time-limit", "/training/time_limit_seconds"))
        self.assertIn("the time limit of 9.5 s is over", problem["detail"])

    def test_a_spec_that_is_none(self):
        problem = self.failed(self.changed(ENCODER, '"ovr_encoder"', '"encoder_of_tomorrow"'))
        self.assertEqual(problem["kind"], "invalid-spec")

    def test_more_ranks_than_there_are(self):
        problem = self.failed(ENCODER, ranks=2, threads=1)
        self.assertEqual(problem["pointer"], "/training/ranks")
        self.assertIn("wants 2 ranks, and 1 were started", problem["detail"])

    def test_nowhere_to_put_files(self):
        """The directory for temporary files goes while it trains."""
        with directory() as place:
            temporary = os.path.join(place, "tmp")
            os.mkdir(temporary)
            with Daemon(reference(ENCODER), tell=lambda daemon, report: shutil.rmtree(temporary, True)) as daemon:
                process = start(daemon.order(place), TMPDIR=temporary)
                _, errors = process.communicate(timeout=60)
                self.assertEqual((process.returncode, daemon.breaches), (0, []), errors)
                self.assertEqual(daemon.end["problem"]["kind"], "storage")
                self.assertIn("(TMPDIR says where)", daemon.end["problem"]["detail"])


class Orders(Case):
    def refused(self, text, lines, mode=0o600, there=True):
        with directory() as place:
            path = os.path.join(place, "order")
            with open(path, "w") as file:
                file.write(lines)
            os.chmod(path, mode)
            self.assertIn(text, self.work(None, status=1, order=path))
            self.assertEqual(os.path.exists(path), there)

    GOOD = "url=http://127.0.0.1:1\ntoken=" + TOKEN + "\n"

    def test_others_must_not_read_it(self):
        for mode in 0o644, 0o640, 0o606, 0o620:
            self.refused(f"mode {mode:03o}, so that others may read it", self.GOOD, mode)

    @unittest.skipIf(os.geteuid(), "only root can give files away")
    def test_it_is_not_somebody_else_s(self):
        with directory() as place:
            path = os.path.join(place, "order")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(self.GOOD)
            os.chown(path, 65534, 65534)
            self.assertIn("is somebody else's", self.work(None, status=1, order=path))

    def test_what_is_no_order(self):
        self.refused("is empty or has more than", "")
        self.refused("is empty or has more than", self.GOOD + "\n" * 5000)
        self.refused("lines are url=, token= and ca=", self.GOOD + "colour=red\n")
        self.refused("there twice", self.GOOD + self.GOOD)
        self.refused("no url=", "token=" + TOKEN + "\n")
        self.refused("no url=", "url=file:///etc/passwd\ntoken=" + TOKEN + "\n")
        self.refused("no token=", "url=http://127.0.0.1:1\n")
        self.refused("has blanks", "url=http://127.0.0.1:1\ntoken=a b\n")
        self.refused("is too long", "url=http://" + "x" * 600 + "\ntoken=" + TOKEN + "\n")

    def test_no_file(self):
        with directory() as place:
            self.assertIn("cannot open", self.work(None, status=1, order=os.path.join(place, "order")))
            self.assertIn("is no file", self.work(None, status=1, order=place))

    def test_it_is_removed(self):
        with Daemon(reference(ENCODER)) as daemon, directory() as place:
            path = daemon.order(place)
            self.work(daemon, order=path)
            self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    main()
