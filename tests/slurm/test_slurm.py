"""Experiments on a real Slurm cluster: two nodes, each in a network namespace of this machine, with the real worker.
A run there ends with the same weights as here."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from support import BUILD, ROOT, main

CLUSTER = os.path.join(ROOT, "tests/slurm/cluster.sh")
WORKER = os.path.join(BUILD, "ovr-worker")
PORT, ADDRESS = 8080, "10.77.0.1"
PATIENCE_S = 90


def what_is_missing():
    programs = ["slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare"]
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        return f"needs {', '.join(missing)}: scripts/deps.sh slurm"
    if not os.path.exists(WORKER):
        return "needs ovr-worker, which is built without sanitizers"
    if os.geteuid():
        return "needs root, to make network namespaces"
    if subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True).returncode:
        return "needs the right to make network namespaces"
    return None


MISSING = what_is_missing()


def spec(executor, **training):
    return {"name": "far",
            "dataset": {"generator": "sphere", "samples": 1500, "test_samples": 300},
            "model": {"kind": "ovr_encoder", "hidden": [1024]},
            "probe": {"epochs": 2},
            "training": {"epochs": 3, "threads": 1, "executor": executor, **training}}


class Lab:
    """The cluster, and a daemon on its controller's host; `ask` speaks to it from there."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="ovrd-slurm-")
        os.chmod(self.directory, 0o755)  # or munged refuses
        self.cluster = os.path.join(self.directory, "cluster")
        self.data = os.path.join(self.directory, "data")
        self.daemon = None
        self.run(CLUSTER, "up", self.cluster)
        made = self.run(os.path.join(BUILD, "ovrd"), "user", "add", "admin", "--role", "admin", "--data-dir", self.data)
        self.token = re.search(r"^ovrd_\w+$", made, re.M)[0]

    @staticmethod
    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def on(self, host, *command):
        return self.run(CLUSTER, "on", self.cluster, host, *command)

    def start(self, *options):
        log = open(os.path.join(self.directory, "log"), "ab")
        self.daemon = subprocess.Popen(
            [CLUSTER, "on", self.cluster, "ctl", os.path.join(BUILD, "ovrd"), "--data-dir", self.data,
             "--listen", f"{ADDRESS}:{PORT}", "--slurm", "on", "--worker-url", f"http://{ADDRESS}:{PORT}",
             "--slurm-worker", WORKER, "--slurm-poll", "1", "--slurm-cores", "1", "--checkpoint", "1",
             f"--slurm-options=--output={self.directory}/out-%j", *options],
            stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self.daemon.stdout.readline().startswith("listening"), self.last_words()

    def stop(self, how=signal.SIGTERM):
        self.daemon.send_signal(how)
        self.daemon.wait()
        self.daemon.stdout.close()
        self.daemon = None

    def close(self):
        if self.daemon:
            self.stop()
        self.run(CLUSTER, "down", self.cluster)
        shutil.rmtree(self.directory)

    def last_words(self):
        texts = []
        for name in sorted(os.listdir(self.directory)):
            if name.startswith(("log", "out-")):
                with open(os.path.join(self.directory, name), errors="replace") as file:
                    texts.append(f"{name}: {file.read()[-2000:]}")
        return "\n".join(texts)

    def ask(self, path, body=None, method=None):
        command = ["curl", "-sS", "--max-time", "30", "-H", f"Authorization: Bearer {self.token}",
                   "-H", "Content-Type: application/json", f"http://{ADDRESS}:{PORT}{path}"]
        if body is not None:
            command += ["--data-binary", json.dumps(body)]
        if method:
            command += ["-X", method]
        answer = self.on("ctl", *command)
        return json.loads(answer) if answer.startswith(("{", "[")) else answer

    def submit(self, document):
        made = self.ask("/v1/experiments", document)
        if "id" not in made:
            raise AssertionError(str(made))
        return made["id"]

    def wait(self, ident, test):
        """Until test(experiment)."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found = self.ask(f"/v1/experiments/{ident}")
            if test(found):
                return found
            if found["state"] in ("succeeded", "failed", "cancelled"):
                break
            time.sleep(0.2)
        raise AssertionError(f"{found}\n{self.last_words()}")

    def end(self, ident, state="succeeded"):
        return self.wait(ident, lambda e: e["state"] == state)

    def weights(self, ident):
        return self.end(ident)["provenance"]["weights"]

    def jobs(self):
        """Of Slurm, by name: id and state."""
        lines = self.on("ctl", "squeue", "--noheader", "--states=all", "--format=%j|%i|%T").split()
        return {name: (number, state) for name, number, state in (line.split("|") for line in lines)}

    def await_job(self, name, *states):
        until = time.monotonic() + PATIENCE_S
        while self.jobs().get(name, ("", ""))[1] not in states:
            assert time.monotonic() < until, f"{name} is not {states}: {self.jobs()}\n{self.last_words()}"
            time.sleep(0.2)

    def await_end(self, name):
        """Of a job that is cancelled, or whose worker was quicker and ended by itself."""
        self.await_job(name, "CANCELLED", "COMPLETED", "FAILED")


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
        self.assertIn("does /nowhere/ovr-worker exist there", error["detail"])

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
