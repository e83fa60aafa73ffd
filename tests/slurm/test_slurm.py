"""Experiments on a real Slurm cluster: two nodes, each in a network namespace of this machine, with the real worker.
A run there ends with the same weights as here."""
import glob
import os
import shutil
import signal
import unittest

from lab import MISSING, Lab, spec
from support import main


@unittest.skipIf(MISSING, MISSING)
class OnTheCluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start()

    def long_one(self):
        ident = self.lab.submit(spec("slurm", epochs=100000))
        self.lab.wait(ident, lambda e: e["state"] == "running" and e["progress"] and e["progress"]["epoch"] > 2)
        return ident

    def test_the_same_weights_as_here(self):
        here, there = (self.lab.submit(spec(executor)) for executor in ("local", "slurm"))
        self.assertEqual(self.lab.weights(here), self.lab.weights(there))
        self.assertEqual(self.lab.jobs()[f"ovrd-{there}-1"][1], "COMPLETED")
        self.assertEqual(self.lab.ask(f"/v1/experiments/{there}/weights").keys(),
                         self.lab.ask(f"/v1/experiments/{here}/weights").keys())

    @unittest.skipUnless(shutil.which("mpirun"), "needs OpenMPI: scripts/deps.sh mpi")
    def test_two_ranks_of_one_layer(self):
        here, there = self.lab.submit(spec("local")), self.lab.submit(spec("slurm", ranks=2))
        self.assertEqual(self.lab.weights(here), self.lab.weights(there))

    def test_one_is_cancelled(self):
        ident = self.long_one()
        self.lab.ask(f"/v1/experiments/{ident}/cancel", method="POST")
        self.lab.end(ident, "cancelled")
        self.lab.await_end(f"ovrd-{ident}-1")

    def test_one_is_paused_and_resumed(self):
        ident = self.lab.submit(spec("slurm", epochs=600))
        self.lab.wait(ident, lambda e: e["state"] == "running" and e["progress"] and e["progress"]["epoch"] > 2)
        self.lab.ask(f"/v1/experiments/{ident}/pause", method="POST")
        self.lab.wait(ident, lambda e: e["state"] == "paused")
        self.lab.await_job(f"ovrd-{ident}-1", "COMPLETED")
        self.lab.ask(f"/v1/experiments/{ident}/resume", method="POST")
        here = self.lab.submit(spec("local", epochs=600))
        self.assertEqual(self.lab.weights(ident), self.lab.weights(here))
        self.assertEqual(self.lab.end(ident)["attempts"], 2)

    def test_somebody_uses_scancel(self):
        ident = self.long_one()
        self.lab.on("ctl", "scancel", self.lab.jobs()[f"ovrd-{ident}-1"][0])
        error = self.lab.end(ident, "failed")["error"]
        self.assertEqual(error["type"], "/problems/cluster-cancelled")

    def test_more_wait_than_there_are_cores(self):
        idents = [self.lab.submit(spec("slurm", epochs=100000)) for _ in range(5)]
        waiting = self.lab.wait(idents[4], lambda e: e["queue"] and "Resources" in e["queue"]["reason"])
        self.assertEqual(waiting["queue"]["reason_code"], "slurm")
        for ident in idents:
            self.lab.ask(f"/v1/experiments/{ident}/cancel", method="POST")
        for ident in idents:
            self.lab.await_end(f"ovrd-{ident}-1")

    def test_the_daemon_is_killed(self):
        ident = self.lab.submit(spec("slurm", epochs=600))
        self.lab.wait(ident, lambda e: e["state"] == "running" and e["progress"] and e["progress"]["epoch"] > 2)
        self.lab.stop(signal.SIGKILL)
        self.lab.start()
        here = self.lab.submit(spec("local", epochs=600))
        self.assertEqual(self.lab.weights(ident), self.lab.weights(here))
        self.assertEqual(self.lab.end(ident)["attempts"], 1)


@unittest.skipIf(MISSING, MISSING)
class Misconfigured(unittest.TestCase):
    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)

    def test_no_such_partition(self):
        self.lab.start("--slurm-options=--partition=nowhere")
        ident = self.lab.submit(spec("slurm"))
        self.lab.wait(ident, lambda e: "Invalid partition name" in (e["queue"]["requeued_because"] or ""))
        self.assertIn("Invalid partition name", self.lab.ask("/readyz")["cluster"]["trouble"])
        self.assertRegex(self.lab.ask("/metrics"), r"(?m)^ovrd_cluster_blocked 1$")
        self.assertRegex(self.lab.ask("/metrics"), r"(?m)^ovrd_cluster_up 1$")

    def test_no_such_worker(self):
        self.lab.start("--slurm-worker", "/nowhere/ovr-worker", "--max-crashes", "2")
        ident = self.lab.submit(spec("slurm"))
        error = self.lab.end(ident, "failed")["error"]
        self.assertEqual(error["type"], "/problems/crashed")
        self.assertIn("does /nowhere/ovr-worker exist there?", error["detail"])
        self.assertEqual(glob.glob(os.path.join(self.lab.cluster, "tmp", "h?", "*")), [], "the token is left there")

    def test_more_memory_than_a_node_has(self):
        self.lab.start()
        document = spec("slurm")
        document["model"]["hidden"] = [65536]
        document["dataset"]["samples"] = 1000000
        ident = self.lab.submit(document)
        error = self.lab.end(ident, "failed")["error"]
        self.assertEqual(error["type"], "/problems/too-large")
        self.assertIn("node configuration is not available", error["detail"])


if __name__ == "__main__":
    main()
