"""The daemon is killed while it sends an experiment to Slurm, which is played by tests/slurm/fake: in the end there is
one job, and its worker's token is good. And how it starts without what it needs."""
import glob
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

import ovrd
from support import BUILD, ROOT, Process, main

SPEC = {"dataset": {"generator": "sphere", "samples": 200}, "model": {"kind": "mlp", "hidden": [4]},
        "training": {"executor": "slurm"}}
PATIENCE_S = 60


class Fake(Process):
    """A daemon, and a directory of its own for the programs that play Slurm's."""

    def __init__(self):
        super().__init__("--slurm", "on", "--slurm-poll", "1", "--worker-url", "http://ovrd.lab:8080")
        self.slurm = os.path.join(self.directory.name, "slurm")
        for part in ("bin", "jobs", "scripts"):
            os.makedirs(os.path.join(self.slurm, part))
        for program in ("sbatch", "squeue", "scancel"):
            os.symlink(os.path.join(ROOT, "tests/slurm/fake", program), os.path.join(self.slurm, "bin", program))
        self.options += ("--slurm-directory", os.path.join(self.slurm, "bin"))

    def path(self, name):
        return os.path.join(self.slurm, name)

    def put(self, name, text=""):
        with open(self.path(name), "w") as file:
            file.write(text)

    def wait(self, test, what):
        until = time.monotonic() + PATIENCE_S
        while not (found := test()):
            assert time.monotonic() < until, f"{what}: {self.last_words()}"
            time.sleep(0.05)
        return found

    def read(self, pattern):
        return {os.path.basename(path): open(path).read() for path in glob.glob(self.path(pattern))}


def work(process, script, path, *options):
    """What the daemon answers to the worker that has this script."""
    token = re.search(r"^token=(\w+)$", script, re.M)[1]
    return subprocess.run(["curl", "-sS", "-H", f"Authorization: Bearer {token}", *options, process.url + "/v1/work" + path],
                          capture_output=True, text=True, timeout=30, check=True).stdout


class Killed(unittest.TestCase):
    def kill_while(self, obstacle):
        """Kills the daemon while sbatch hangs, and starts it again. Returns the experiment, and its one job's script."""
        with Fake() as process:
            process.put(obstacle)
            ident = ovrd.connect(process.url).submit(SPEC).id
            process.wait(lambda: os.path.exists(process.path("hangs")), "sbatch was not called")
            process.stop(signal.SIGKILL)
            before = process.read("scripts/*")
            os.kill(int(process.read("hangs")["hangs"]), signal.SIGKILL)
            os.remove(process.path(obstacle))
            process.start()
            place = process.wait(lambda: self.queue(process, ident, "as job 1"), "the job was not found")
            time.sleep(2.5)  # two more polls
            self.assertEqual(list(process.read("scripts/*")), ["1"])
            self.assertEqual(list(process.read("jobs/*")), ["1"])
            self.assertEqual(place["reason_code"], "slurm")
            script = process.read("scripts/*")["1"]
            self.check_token(process, script)
        return before, script

    @staticmethod
    def queue(process, ident, words):
        place = ovrd.connect(process.url).request("GET", f"/v1/experiments/{ident}").json()["queue"]
        return place if place and words in place["reason"] else None

    def check_token(self, process, script):
        self.assertIn('"attempt":1', work(process, script, "").replace(" ", ""))

    def test_before_slurm_took_it(self):
        before, _ = self.kill_while("deaf")
        self.assertEqual(before, {})

    def test_after_slurm_took_it(self):
        before, script = self.kill_while("mute")
        self.assertEqual(before, {"1": script})

    def test_it_stops_though_slurm_hangs(self):
        with Fake() as process:
            process.put("deaf")
            ovrd.connect(process.url).submit(SPEC)
            process.wait(lambda: os.path.exists(process.path("hangs")), "sbatch was not called")
            started = time.monotonic()
            process.stop()
            self.assertLess(time.monotonic() - started, 10)
            pid = int(process.read("hangs")["hangs"])
            self.assertFalse(os.path.exists(f"/proc/{pid}"), "sbatch lives on")
            process.start()


class Down(unittest.TestCase):
    def test_what_is_said_of_it(self):
        with Fake() as process:
            lab = ovrd.connect(process.url)
            process.put("down")
            ident = lab.submit(SPEC).id
            ready = process.wait(lambda: lab.request("GET", "/readyz").json()["cluster"].get("trouble"), "no trouble")
            self.assertIn("Unable to contact slurm controller", ready)
            self.assertRegex(lab.request("GET", "/metrics").content.decode(), r"(?m)^ovrd_cluster_up 0$")
            self.assertEqual(process.last_words().count("nothing is sent to the cluster"), 1)
            os.remove(process.path("down"))
            process.wait(lambda: Killed.queue(process, ident, "as job 1"), "it was not sent")
            self.assertEqual(lab.request("GET", "/readyz").json()["cluster"], {"answers": True})
            self.assertEqual(process.last_words().count("the cluster takes experiments again"), 1)


class Without(unittest.TestCase):
    def test_a_start_without_the_cluster(self):
        with Fake() as process:
            ident = ovrd.connect(process.url).submit(SPEC).id
            process.wait(lambda: Killed.queue(process, ident, "as job 1"), "it was not sent")
            process.stop()
            process.options = process.options[2:]
            process.start()
            process.wait(lambda: "1 experiment is on the cluster" in process.last_words(), "no warning")


class Words(unittest.TestCase):
    def test_a_site_with_its_own_language(self):
        """What is said in Slurm's words is cut somewhere, and may be in any encoding."""
        with Fake() as process:
            lab = ovrd.connect(process.url)
            for text in (b"sbatch: error: x" + "\u00fc".encode() * 150, b"sbatch: error: Gr\xf6\xdfe"):
                with open(process.path("refuse"), "wb") as file:
                    file.write(text)
                ident = lab.submit(SPEC).id
                process.wait(lambda: lab.request("GET", "/readyz").json()["cluster"].get("trouble"), "no trouble")
                self.assertIn("Slurm", lab.request("GET", "/v1/queue").json()["cluster"]["trouble"])
                self.assertIn("queued", lab.request("GET", f"/v1/experiments/{ident}").json()["state"])
                os.remove(process.path("refuse"))
                process.wait(lambda: Killed.queue(process, ident, "as job"), "it was not sent")
            process.wait(lambda: Killed.queue(process, ident, "as job 2"), "it was not sent")
            with open(process.path("jobs/2"), "wb") as file:
                file.write(f"ovrd-{ident}-1|PENDING|".encode() + b"Gr\xf6\xdfe|\n")
            process.wait(lambda: Killed.queue(process, ident, "Gr??e"), "no reason")
            self.assertEqual(len(lab.request("GET", "/v1/queue").json()["waiting"]), 2)


class Cancelled(unittest.TestCase):
    def test_its_files_are_gone(self):
        """Somebody cancels the job in Slurm, when its worker has brought this and that."""
        with Fake() as process:
            lab = ovrd.connect(process.url)
            ident = lab.submit(SPEC).id
            process.wait(lambda: Killed.queue(process, ident, "as job 1"), "it was not sent")
            script = process.read("scripts/*")["1"]
            begin = {"number": 1, "begin": {"node": "h1", "cores": 1},
                     "progress": dict.fromkeys(("phase", "epoch", "epochs", "step", "steps", "samples", "seconds", "threads", "memory_bytes"), 0)}
            self.assertIn('"stop"', work(process, script, "/reports", "-H", "Content-Type: application/json", "-d", json.dumps(begin)))
            for path in ("/checkpoints/1/0", "/files/best/x.npy"):
                self.assertEqual(work(process, script, path, "-X", "PUT", "-d", "x"), "")

            def left():
                return [path for place in ("checkpoints", "experiments")
                        for path in glob.glob(os.path.join(process.directory.name, "data", place, ident + "*"))]
            self.assertEqual(len(left()), 2)
            process.put("jobs/1", f"ovrd-{ident}-1|CANCELLED|None|h1\n")
            process.wait(lambda: lab.request("GET", f"/v1/experiments/{ident}").json()["state"] == "failed", "it runs on")
            process.wait(lambda: not left(), "its files stay")


class Start(unittest.TestCase):
    def refuse(self, *options):
        with tempfile.TemporaryDirectory(prefix="ovrd-test-") as directory:
            done = subprocess.run([os.path.join(BUILD, "ovrd"), "--data-dir", directory, "--slurm", "on",
                                   "--listen", "127.0.0.1:0", *options], capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def test_without_an_address(self):
        self.assertIn("--slurm on needs --worker-url", self.refuse())

    def test_without_programs(self):
        said = self.refuse("--worker-url", "http://ovrd.lab:8080", "--slurm-directory", "/nowhere")
        self.assertIn("/nowhere/sbatch can't be run", said)
        self.assertIn("--slurm-directory", said)

    def test_on_loopback(self):
        said = self.refuse("--worker-url", "http://127.0.0.1:8080", "--slurm-directory", "/nowhere")
        self.assertIn("workers on other nodes will not reach it", said)

    def test_with_a_worker_that_is_a_command(self):
        said = self.refuse("--worker-url", "http://ovrd.lab:8080", "--slurm-worker", "rm -rf /; ovr-worker",
                           "--slurm-directory", os.path.join(ROOT, "tests/slurm/fake"))
        self.assertIn("--slurm-worker may have letters", said)


if __name__ == "__main__":
    main()
