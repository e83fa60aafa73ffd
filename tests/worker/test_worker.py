"""ovr-worker, as one process and as the ranks of an MPI job, ends with the weights that the daemon gets, and the ranks
send each other what the shards' sums need and no more."""
import json
import os
import re
import subprocess
import tempfile
import unittest

import ovrd
from support import Process, main
from workdaemon import AS_ROOT, MPIRUN, ONE_RANK, WORKER

ROWS, CLASSES, INPUTS = 128, 10, 3


def spec(kind, units, **more):
    made = {"name": "worker",
            "dataset": {"generator": "sphere", "samples": 1000, "test_samples": 200, "classes": CLASSES, "seed": 7},
            "model": {"kind": kind, "hidden": [units]},
            "loss": {"ovr": {"lambda": 1e-5}},
            "training": {"epochs": 2, "batch_size": ROWS, "seed": 1},
            "probe": {"kind": "logistic_regression", "epochs": 2, "batch_size": 32}}
    for section, members in more.items():
        made[section] = {**made.get(section, {}), **members} if members else members
    return made


ENCODER = spec("ovr_encoder", 1601)
MLP = spec("mlp", 1100, model={"dropout": 0.3}, probe=None)
AUTOENCODER = spec("autoencoder", 2048, probe=None)


def run(document, ranks=0, threads=1):
    """Its standard output, with the bytes that rank 1 sent as "bytes". ranks 0: without mpirun."""
    with tempfile.TemporaryDirectory(prefix="ovrd-test-") as directory:
        path = os.path.join(directory, "spec.json")
        with open(path, "w") as file:
            json.dump(document, file)
        command = [*MPIRUN, str(ranks)] if ranks else []
        done = subprocess.run([*command, WORKER, "-t", str(threads), path, os.path.join(directory, "out")],
                              capture_output=True, text=True, timeout=300, env={**os.environ, **AS_ROOT})
        if done.returncode:
            raise AssertionError(done.stderr)
        found = dict(re.findall(r"^(best|last|accuracy) (.+)$", done.stdout, re.M))
        sent = re.search(r"^rank 1 steps (\d+) meetings (\d+) bytes (\d+)$", done.stdout, re.M)
        if sent:
            found["steps"], found["meetings"], found["bytes"] = map(int, sent.groups())
        found["files"] = {os.path.relpath(os.path.join(d, f), directory)
                          for d, _, files in os.walk(os.path.join(directory, "out")) for f in files}
        return found


@unittest.skipIf(ONE_RANK, ONE_RANK)
class SameWeights(unittest.TestCase):
    def check(self, document):
        with Process("--workers", "1") as process, ovrd.connect(process.url) as lab:
            known = lab.submit(document).wait(120).data["provenance"]
        alone = run(document)
        self.assertEqual(alone["best"], known["weights"]["best_sha256"])
        self.assertEqual(alone["last"], known["weights"]["last_sha256"])
        for ranks, threads in (1, 1), (2, 1), (2, 2), (3, 1), (3, 2):
            if ranks <= (document["model"]["hidden"][0] + 511) // 512:
                found = run(document, ranks, threads)
                for what in "best", "last", "accuracy", "files":
                    self.assertEqual(found.get(what), alone.get(what), (what, ranks, threads))

    def test_encoder(self):
        self.check(ENCODER)

    def test_mlp(self):
        self.check(MLP)

    def test_autoencoder(self):
        self.check(AUTOENCODER)

    def test_kmeans(self):
        document = spec("kmeans", 600)
        del document["loss"]
        self.check(document)


@unittest.skipIf(ONE_RANK, ONE_RANK)
class Traffic(unittest.TestCase):
    """Two runs that differ in their number of steps alone: with a rate that leaves the weights as they are, so that
    evaluating them sends the same."""

    def check(self, kind, bytes_of_sums, **more):
        found = []
        for samples in 10 * ROWS, 20 * ROWS:
            document = spec(kind, 2048, training={"protocol": "published", "epochs": 1},
                            optimizer={"name": "adam", "learning_rate": 1e-30}, probe=None, **more)
            document["dataset"]["samples"] = samples
            found.append(run(document, 2))
        steps = found[1]["steps"] - found[0]["steps"]
        self.assertEqual(steps, 10)
        meetings = (found[1]["meetings"] - found[0]["meetings"]) / steps
        sent = (found[1]["bytes"] - found[0]["bytes"]) / steps
        print(f"# {kind}: {sent:.0f} bytes and {meetings:.0f} meetings a step, 2048 units in 2 ranks, {ROWS} rows")
        self.assertEqual(sent, bytes_of_sums)

    # Of each row its norm and t; six sums of the whole batch (ΣH, OVR, four penalties).
    def test_encoder(self):
        self.check("ovr_encoder", 8 * (2 * ROWS + 6))

    def test_mlp(self):
        self.check("mlp", 8 * (ROWS * (CLASSES + 2) + 6))

    def test_autoencoder(self):
        self.check("autoencoder", 8 * (2 * ROWS + 6) + 4 * ROWS * INPUTS)


class Refusals(unittest.TestCase):
    def refused(self, text, document, ranks):
        with self.assertRaisesRegex(AssertionError, text):
            run(document, ranks)

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_what_ranks_cannot_do(self):
        self.refused("1000 units can be shared by 1..2 ranks, got 3", spec("ovr_encoder", 1000), 3)
        self.refused("one hidden layer", spec("mlp", 1000, model={"kind": "mlp", "hidden": [1000, 1000]}), 2)
        self.refused("the stored spec is not valid: /model/hidden", spec("mlp", 0), 2)

    def test_senseless_arguments(self):
        for arguments in [], ["-t", "2"], ["-t", "2", "spec"], ["-t", "0", "spec", "out"], ["-t", "2x", "spec", "out"], ["-i", "mmx", "spec", "out"], \
                ["-x", "spec", "out"], ["spec", "out", "train"]:
            done = subprocess.run([WORKER, *arguments], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn("usage: ovr-worker", done.stderr)

    @unittest.skipIf(ONE_RANK, ONE_RANK)
    def test_one_rank_needs_no_mpi(self):
        """OPAL_PREFIX: MPI would look for its own programs there."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "spec")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(spec("ovr_encoder", 512), file)
            subprocess.run([WORKER, path, os.path.join(directory, "out")], capture_output=True, check=True, env={**os.environ, "OPAL_PREFIX": "/nowhere"})

    def test_texts_about_it(self):
        for option, text in ("--help", r"usage: ovr-worker ORDER[^$]*\n  4 "), ("--version", r"ovr-worker \S+, \S+ [\d.]+, kernel"), \
                ("--manual", r"\.SH NAME\novr.-worker"):
            done = subprocess.run([WORKER, option], capture_output=True, text=True, check=True)
            self.assertRegex(done.stdout, text)
            self.assertEqual(done.stderr, "")

    def test_what_is_there_stays(self):
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run([WORKER, "spec", directory], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn("is there already", done.stderr)
            self.assertTrue(os.path.isdir(directory))


if __name__ == "__main__":
    main()
