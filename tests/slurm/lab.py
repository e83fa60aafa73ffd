"""What the tests on a real Slurm cluster share: two nodes, each in a network namespace of this machine, a daemon on the
controller's host, and the real worker."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from support import BUILD, ROOT

CLUSTER = os.path.join(ROOT, "tests/slurm/cluster.sh")
WORKER = os.path.join(BUILD, "ovr-worker")
PORT, ADDRESS = 8080, "10.77.0.1"
PATIENCE_S = 60


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

    def __init__(self, *slurm_conf):
        self.directory = tempfile.mkdtemp(prefix="ovrd-slurm-")
        os.chmod(self.directory, 0o755)  # or munged refuses
        self.cluster = os.path.join(self.directory, "cluster")
        self.data = os.path.join(self.directory, "data")
        self.daemon = None
        self.run(CLUSTER, "up", self.cluster, *slurm_conf)
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

    def pids(self, host, program):
        return [int(pid) for pid in self.run(CLUSTER, "pids", self.cluster, host, program).split()]

    def kill(self, host, how=signal.SIGKILL):
        """The Slurm daemon of a host, until cluster.sh starts it again."""
        with open(os.path.join(self.cluster, "pids", host)) as file:
            os.kill(int(file.read()), how)

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

    def ask(self, path, body=None, method=None, token=None):
        command = ["curl", "-sS", "--max-time", "30", "-H", f"Authorization: Bearer {token or self.token}",
                   "-H", "Content-Type: application/json", f"http://{ADDRESS}:{PORT}{path}"]
        if body is not None:
            command += ["--data-binary", json.dumps(body)]
        if method:
            command += ["-X", method]
        answer = self.on("ctl", *command)
        return json.loads(answer) if answer.startswith(("{", "[")) else answer

    def submit(self, document, token=None):
        made = self.ask("/v1/experiments", document, token=token)
        if "id" not in made:
            raise AssertionError(str(made))
        return made["id"]

    def until(self, test, what):
        """Until test() is true; returns what it is then."""
        until = time.monotonic() + PATIENCE_S
        while not (found := test()):
            assert time.monotonic() < until, f"{what}\n{self.last_words()}"
            time.sleep(0.2)
        return found

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
