"""What goes wrong on a cluster: each fault is done to a real one, and in the end the experiment has one result, the
weights of a run that nothing happened to, every epoch once and in order, and nothing is left behind."""
import contextlib
import glob
import os
import re
import shutil
import signal
import stat
import time
import unittest

from lab import ADDRESS, CLUSTER, MISSING, PATIENCE_S, PORT, Lab, spec
from support import main

LEASE_S = 10
EPOCHS = 1500  # ten seconds or so
NODES = ("h1", "h2")
FINAL = ("succeeded", "failed", "cancelled")

# By number of epochs: weights, and the epochs with their digests, of a run on the daemon's machine.
undisturbed: dict[int, tuple[str, list[tuple[int, str]]]] = {}


class Case(unittest.TestCase):
    """A cluster and a daemon for all tests of a class; `options` of the daemon, `slurm_conf` of the cluster."""
    options: tuple[str, ...] = ()
    slurm_conf: tuple[str, ...] = ()
    lab: Lab

    @classmethod
    def setUpClass(cls):
        if not os.environ.get("OVRD_FAULTS"):
            raise unittest.SkipTest("takes some minutes: make check-slurm")
        cls.lab = Lab(*cls.slurm_conf)
        cls.addClassCleanup(cls.lab.close)
        cls.start()

    @classmethod
    def start(cls, *options, sbatch=""):
        # One rank a node, so that two are on two.
        words = f"--output={cls.lab.directory}/out-%j --ntasks-per-node=1 {sbatch}"
        cls.lab.start("--slurm-lease", str(LEASE_S), f"--slurm-options={words}", *cls.options, *options)

    def setUp(self):
        self.addCleanup(self.clear)

    def clear(self):
        """A test that failed leaves the next one its cluster."""
        if not self.lab.daemon:
            self.start()
        for experiment in self.lab.ask("/v1/experiments")["experiments"]:
            if experiment["state"] not in FINAL:
                self.post(experiment["id"], "cancel")

    # What is done

    def submit(self, **training):
        return self.lab.submit(spec("slurm", **{"epochs": EPOCHS, **training}))

    def running(self, **training):
        """One that has a checkpoint, and the node that its first rank is on."""
        ident = self.submit(**training)
        self.lab.until(lambda: self.checkpoints(ident), "there is no checkpoint")
        return ident, self.experiment(ident)["node"]

    def checkpoints(self, ident):
        return glob.glob(os.path.join(self.lab.data, "checkpoints", f"{ident}.work-*"))

    def experiment(self, ident):
        return self.lab.ask(f"/v1/experiments/{ident}")

    def post(self, ident, action):
        return self.lab.ask(f"/v1/experiments/{ident}/{action}", method="POST")

    def job(self, ident, attempt=1):
        return self.lab.jobs()[f"ovrd-{ident}-{attempt}"][0]

    def worker(self, ident, node, attempt=1):
        """The process of an experiment's rank on a node."""
        mine = f"SLURM_JOB_ID={self.job(ident, attempt)}".encode()
        for pid in self.lab.pids(node, "ovr-worker"):
            with open(f"/proc/{pid}/environ", "rb") as file:
                if mine in file.read().split(b"\0"):
                    return pid
        raise AssertionError(f"no worker of {ident} on {node}: {self.lab.last_words()}")

    def cluster(self, verb, *arguments):
        self.lab.run(CLUSTER, verb, self.lab.cluster, *arguments)

    @contextlib.contextmanager
    def drained(self):
        """What is sent to Slurm waits there until the end of the block."""
        def update(state):
            self.lab.on("ctl", "scontrol", "update", "NodeName=h1,h2", f"State={state}", "Reason=test")
        update("DRAIN")
        try:
            yield
        finally:
            if "drain" in self.lab.on("ctl", "sinfo", "--noheader", "--format=%T"):  # a killed controller may forget it
                update("RESUME")

    @contextlib.contextmanager
    def restarted(self, *options):
        """The daemon has these options, too, until the end of the block."""
        self.lab.stop()
        self.start(*options)
        try:
            yield
        finally:
            self.lab.stop()
            self.start()

    # What is seen

    def log(self, ident):
        return self.lab.ask(f"/v1/experiments/{ident}/log")

    def output(self, job):
        with open(os.path.join(self.lab.directory, f"out-{job}"), errors="replace") as file:
            return file.read()

    def epochs(self, ident):
        lines = self.lab.ask(f"/v1/experiments/{ident}/metrics")["series"]
        return [(line["epoch"], line["digest"]) for line in lines]

    def what_is_left(self):
        """Jobs, workers, attempts, and files in the data directory and on the nodes."""
        left = glob.glob(os.path.join(self.lab.data, "*", "*work-*"))
        left += [path for path in glob.glob(os.path.join(self.lab.cluster, "tmp", "*", "*"))
                 if not os.path.basename(path).startswith("ompi.")]  # OpenMPI's own, of a worker that was killed
        left += re.findall(r"^ovrd_cluster_(?:waiting|running)_jobs [1-9].*", self.lab.ask("/metrics"), re.M)
        left += self.lab.on("ctl", "squeue", "--noheader", "--format=%j %T").splitlines()
        return left + [f"a worker on {node}" for node in NODES if self.lab.pids(node, "ovr-worker")]

    def nothing_is_left(self, but="nothing"):
        until = time.monotonic() + PATIENCE_S
        while left := [what for what in self.what_is_left() if but not in what]:
            self.assertLess(time.monotonic(), until, f"{left}\n{self.lab.last_words()}")
            time.sleep(0.5)

    def ends_well(self, ident, attempts, epochs=EPOCHS):
        ended = self.lab.end(ident)
        self.assertEqual(ended["attempts"], attempts)
        if epochs not in undisturbed:
            here = self.lab.submit(spec("local", epochs=epochs))
            undisturbed[epochs] = self.lab.weights(here), self.epochs(here)
        weights, series = undisturbed[epochs]
        self.assertEqual([epoch for epoch, _ in series], list(range(1, epochs + 1)))
        self.assertEqual(self.epochs(ident), series)
        self.assertEqual(ended["provenance"]["weights"], weights)
        self.nothing_is_left()
        return ended

    def all_end_well(self, *idents, epochs=EPOCHS):
        for ident in idents:
            self.lab.end(ident)
        for ident in idents:
            self.ends_well(ident, 1, epochs)

    def goes_on(self, ident, attempts, epochs=EPOCHS):
        """From a checkpoint."""
        self.ends_well(ident, attempts, epochs)
        self.assertRegex(self.log(ident), r"goes on in epoch [2-9]|goes on in epoch [1-9][0-9]")

    def fails(self, ident, problem):
        error = self.lab.end(ident, "failed")["error"]
        self.assertEqual(error["type"], f"/problems/{problem}")
        self.nothing_is_left()
        return error["detail"]


@unittest.skipIf(MISSING, MISSING)
class Workers(Case):
    def test_one_is_killed(self):
        ident, node = self.running()
        os.kill(self.worker(ident, node), signal.SIGKILL)
        self.goes_on(ident, 2)
        self.assertIn("without a last report", self.log(ident))

    @unittest.skipUnless(shutil.which("mpirun"), "needs OpenMPI: scripts/deps.sh mpi")
    def test_two_ranks_on_two_nodes(self):
        """First one of them is killed, then the other."""
        epochs = 2 * EPOCHS  # two ranks are faster than one, where each has a core
        ident, _ = self.running(ranks=2, epochs=epochs)
        for attempt, node in enumerate(NODES, 2):
            os.kill(self.worker(ident, node, attempt - 1), signal.SIGKILL)
            self.lab.wait(ident, lambda e: e["state"] == "running" and e["attempts"] == attempt)
            self.lab.until(lambda: all(self.lab.pids(node, "ovr-worker") for node in NODES), "no two workers")
        self.goes_on(ident, 3, epochs)

    def test_one_hangs_and_wakes_up(self):
        """Somebody else has its experiment by then."""
        ident, node = self.running()
        pid = self.worker(ident, node)
        os.kill(pid, signal.SIGSTOP)
        self.lab.wait(ident, lambda e: e["attempts"] == 2)
        with contextlib.suppress(ProcessLookupError):  # where Slurm was quicker
            os.kill(pid, signal.SIGCONT)
        self.goes_on(ident, 2)
        self.assertIn("was not heard of for", self.log(ident))

    def test_somebody_uses_scancel(self):
        ident, _ = self.running()
        self.lab.on("ctl", "scancel", self.job(ident))
        self.assertIn("was cancelled in Slurm (scancel", self.fails(ident, "cluster-cancelled"))
        self.ends_well(self.post(ident, "rerun")["id"], 1)

    def test_somebody_uses_scancel_on_one_that_waits(self):
        with self.drained():
            ident = self.submit()
            self.lab.await_job(f"ovrd-{ident}-1", "PENDING")
            self.lab.on("ctl", "scancel", self.job(ident))
            self.fails(ident, "cluster-cancelled")

    def test_pause_resume_and_cancel(self):
        """Of what waits in Slurm and of what runs there."""
        ident, _ = self.running()
        self.post(ident, "pause")
        self.lab.wait(ident, lambda e: e["state"] == "paused")
        with self.drained():
            self.post(ident, "resume")
            self.lab.await_job(f"ovrd-{ident}-2", "PENDING")
            self.post(ident, "pause")
            self.lab.wait(ident, lambda e: e["state"] == "paused")
            self.lab.await_job(f"ovrd-{ident}-2", "CANCELLED")
            second = self.submit()
            self.lab.await_job(f"ovrd-{second}-1", "PENDING")
            self.post(second, "cancel")
            self.lab.end(second, "cancelled")
            self.lab.await_job(f"ovrd-{second}-1", "CANCELLED")
        third, _ = self.running()
        self.post(third, "cancel")
        self.lab.end(third, "cancelled")
        self.nothing_is_left(but=f"{ident}.work-")
        self.post(ident, "resume")
        self.goes_on(ident, 3)

    def test_its_time_in_slurm_is_over(self):
        """It hangs meanwhile, since Slurm looks at the time twice a minute only, and is woken up to end."""
        with self.restarted("--slurm-lease", "100"):
            ident, node = self.running()
            os.kill(self.worker(ident, node), signal.SIGSTOP)
            soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
            self.lab.on("ctl", "scontrol", "update", f"JobId={self.job(ident)}", f"EndTime={soon}")
            self.goes_on(ident, 2)
            self.assertEqual(self.lab.jobs()[f"ovrd-{ident}-1"][1], "TIMEOUT")
            self.assertIn("its node was given to others", self.log(ident))


@unittest.skipIf(MISSING, MISSING)
class Nodes(Case):
    def revive(self, node):
        if not self.lab.pids(node, "slurmd"):
            self.cluster("start", node)
        self.lab.until(lambda: "idle" in self.lab.on("ctl", "sinfo", "--noheader", f"--nodes={node}", "--format=%T"),
                       f"{node} does not come back")

    def test_slurmd_is_killed_and_starts_again(self):
        ident, node = self.running()
        self.lab.kill(node)
        time.sleep(2)
        self.cluster("start", node)
        self.ends_well(ident, 1)

    def moves(self, ident, node):
        """To the other node. Slurm may have tried the lost one once more. Returns the number of attempts."""
        moved = self.lab.wait(ident, lambda e: e["state"] == "running" and e["attempts"] > 1)
        while moved["node"] == node:
            moved = self.lab.wait(ident, lambda e: e["state"] == "running" and e["attempts"] > moved["attempts"])
        return moved["attempts"]

    def first_stops(self, node, job):
        self.lab.until(lambda: not self.lab.pids(node, "ovr-worker"), "the first worker goes on")
        said = self.output(job)
        self.assertIn("ends without a result", said)
        return said

    def test_slurmd_is_killed_and_stays_so(self):
        """Slurm gives the node up, while the worker there lives on and still has its lease."""
        with self.restarted("--slurm-lease", "100"):
            ident, node = self.running()
            job, pid = self.job(ident), self.worker(ident, node)
            os.kill(pid, signal.SIGSTOP)  # or it would be done by then
            self.lab.kill(node)
            self.addCleanup(self.revive, node)
            attempts = self.moves(ident, node)
            os.kill(pid, signal.SIGCONT)
            self.assertIn("it answers 409", self.first_stops(node, job))
            self.revive(node)
            self.goes_on(ident, attempts)
            self.assertIn("NODE_FAIL", self.log(ident))

    def cut_off(self):
        ident, node = self.running()
        job = self.job(ident)
        self.cluster("cut", node)
        self.addCleanup(self.revive, node)
        self.addCleanup(self.cluster, "join", node)
        return ident, node, job, self.moves(ident, node)

    def test_one_is_cut_off(self):
        """Its worker knows by itself that its lease is over."""
        ident, node, job, attempts = self.cut_off()
        self.assertIn("lease", self.first_stops(node, job))
        self.cluster("join", node)
        self.goes_on(ident, attempts)

    def test_one_is_cut_off_and_comes_back_within_its_lease(self):
        """But after Slurm gave it up, and with all of the result."""
        with self.restarted("--slurm-lease", "100"):
            ident, node, job, attempts = self.cut_off()
            self.assertTrue(self.lab.pids(node, "ovr-worker"))
            self.cluster("join", node)
            self.first_stops(node, job)
            self.goes_on(ident, attempts)


@unittest.skipIf(MISSING, MISSING)
class Controller(Case):
    def seconds(self):
        """Of computing, of the thread that talks to Slurm and of the programs that it calls."""
        for task in glob.glob(f"/proc/{self.lab.daemon.pid}/task/*"):
            with open(os.path.join(task, "comm")) as file:
                if file.read() == "cluster\n":
                    with open(os.path.join(task, "stat")) as file:
                        fields = file.read().rpartition(")")[2].split()
                    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        raise AssertionError("there is no such thread")

    def answers(self):
        with contextlib.suppress(AssertionError):
            return "UP" in self.lab.on("ctl", "scontrol", "ping")

    def test_it_starts_again(self):
        first, _ = self.running()
        with self.drained():
            second = self.submit()
            self.lab.await_job(f"ovrd-{second}-1", "PENDING")
            self.lab.kill("ctl")
            time.sleep(1)
            self.cluster("start", "ctl")
            self.lab.until(self.answers, "it does not answer")
        self.lab.end(first)
        for ident in second, first:  # it may have forgotten those of its last seconds
            self.ends_well(ident, self.lab.end(ident)["attempts"])
            self.assertLess(self.experiment(ident)["attempts"], 3)

    def test_it_is_down_for_a_while(self):
        ident, _ = self.running()
        self.lab.kill("ctl")
        trouble = self.lab.until(lambda: self.lab.ask("/readyz")["cluster"].get("trouble"), "no trouble")
        before, now = self.seconds(), time.monotonic()
        late = self.submit()
        self.lab.wait(late, lambda e: "Slurm" in e["queue"]["reason"])
        self.assertRegex(trouble, "controller|squeue")
        self.assertRegex(self.lab.ask("/metrics"), r"(?m)^ovrd_cluster_up 0$")
        while time.monotonic() < now + 8:
            asked = time.monotonic()
            self.experiment(ident)
            self.lab.ask("/v1/queue")
            self.assertLess(time.monotonic() - asked, 2)
            time.sleep(0.2)
        self.assertLess(self.seconds() - before, 2)
        stopped = time.monotonic()
        self.lab.stop()
        self.assertLess(time.monotonic() - stopped, 10)
        self.start()
        self.cluster("start", "ctl")
        self.all_end_well(ident, late)


@unittest.skipIf(MISSING, MISSING)
class Daemon(Case):
    """Is killed at the worst moment. A program in the way of sbatch says when that is."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.programs = os.path.join(cls.lab.directory, "programs")
        os.mkdir(cls.programs)
        for name in "squeue", "scancel", "srun":
            os.symlink(shutil.which(name), os.path.join(cls.programs, name))
        path = os.path.join(cls.programs, "sbatch")
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\nhere=${{0%/*}}\nhang() {{ echo $$ >"$here/hangs"; exec sleep 600; }}\n'
                       '[ "$1" = --version ] || [ ! -e "$here/before" ] || hang\n'
                       f'said=$({shutil.which("sbatch")} "$@") || exit\n'
                       '[ "$1" = --version ] || [ ! -e "$here/after" ] || hang\necho "$said"\n')
        os.chmod(path, stat.S_IRWXU)
        cls.lab.stop()
        cls.options = ("--slurm-directory", cls.programs)
        cls.start()

    def kill_while_it_sends(self, when):
        obstacle, hangs = os.path.join(self.programs, when), os.path.join(self.programs, "hangs")
        open(obstacle, "w").close()
        ident = self.submit()
        self.lab.until(lambda: os.path.exists(hangs) and os.path.getsize(hangs), "sbatch was not called")
        self.lab.stop(signal.SIGKILL)
        with open(hangs) as file:
            os.kill(int(file.read()), signal.SIGKILL)
        os.remove(hangs)
        os.remove(obstacle)
        self.start()
        self.ends_well(ident, 1)
        self.assertEqual([name for name in self.lab.jobs() if ident in name], [f"ovrd-{ident}-1"])
        lines = self.lab.on("ctl", "squeue", "--noheader", "--states=all", "--format=%j").split()
        self.assertEqual(lines.count(f"ovrd-{ident}-1"), 1)

    def test_it_is_killed_before_slurm_has_the_job(self):
        self.kill_while_it_sends("before")

    def test_it_is_killed_before_it_knows_the_job(self):
        self.kill_while_it_sends("after")

    def test_it_is_killed_during_a_run(self):
        """And comes back when the worker has long had its result."""
        ident, node = self.running()
        self.lab.stop(signal.SIGKILL)
        time.sleep(LEASE_S / 2)
        self.start()
        self.ends_well(ident, 1)

    def test_it_is_away_for_longer_than_the_lease(self):
        ident, node = self.running()
        self.lab.stop(signal.SIGKILL)
        self.lab.until(lambda: not self.lab.pids(node, "ovr-worker"), "the worker goes on")
        self.start()
        self.goes_on(ident, 2)

    def test_it_stops_during_a_run(self):
        ident, _ = self.running()
        self.lab.stop()
        self.start()
        self.ends_well(ident, 1)


@unittest.skipIf(MISSING, MISSING)
class FullQueue(Case):
    """Slurm takes but a few jobs, or the daemon sends but one at a time."""
    slurm_conf = ("MaxJobCount=2", "MinJobAge=2")

    def test_slurm_takes_no_more(self):
        idents = [self.submit(epochs=200) for _ in range(5)]
        self.lab.until(lambda: self.lab.ask("/readyz")["cluster"].get("trouble"), "Slurm takes all")
        self.assertRegex(self.lab.ask("/metrics"), r"(?m)^ovrd_cluster_up 1$")
        self.all_end_well(*idents, epochs=200)

    def test_one_at_a_time(self):
        with self.restarted("--slurm-jobs", "1"):
            self.lab.ask("/v1/users", {"name": "eve", "role": "member"})
            token = self.lab.ask("/v1/users/eve/tokens", {"label": "test"})["token"]
            mine = [self.submit(epochs=200) for _ in range(6)]
            hers = [self.lab.submit(spec("slurm", epochs=200), token) for _ in range(3)]
            self.all_end_well(*mine, *hers, epochs=200)
            order = sorted(mine + hers, key=lambda ident: self.experiment(ident)["started_at"])
            self.assertLess(order.index(hers[0]), 3)
            self.assertLess(order.index(hers[-1]), len(order) - 2)
            self.assertEqual([ident for ident in order if ident in mine], mine)


@unittest.skipIf(MISSING, MISSING)
class Impossible(Case):
    def test_more_time_than_the_partition_gives(self):
        """It stays there, since the partition may be changed."""
        self.lab.on("ctl", "scontrol", "update", "PartitionName=main", "MaxTime=100")
        self.stays_until_it_is_cancelled(self.submit(time_limit_seconds=36000), "PartitionTimeLimit.*so much time")

    def stays_until_it_is_cancelled(self, ident, reason):
        self.lab.wait(ident, lambda e: re.search(reason, e["queue"]["reason"]))
        self.post(ident, "cancel")
        self.lab.end(ident, "cancelled")
        self.nothing_is_left()

    def test_more_cores_than_a_node_has(self):
        self.stays_until_it_is_cancelled(self.submit(threads=64), "PartitionConfig.*no node like that")

    def test_more_ranks_than_there_are_nodes(self):
        detail = self.fails(self.lab.submit({**spec("slurm", ranks=4), "model": {"kind": "ovr_encoder", "hidden": [2048]}}),
                            "too-large")
        self.assertRegex(detail, "[Nn]ode")

    def unreachable(self, url):
        with self.restarted("--worker-url", url, "--max-crashes", "2"):
            ident = self.submit()
            self.lab.wait(ident, lambda e: e["queue"] and url in (e["queue"]["requeued_because"] or ""))
            detail = self.fails(ident, "crashed")
        self.assertIn(f"does {url} answer from there", detail)
        self.assertIn(f"{self.lab.directory}/out-{self.job(ident, 2)}", detail)

    def test_the_daemon_is_not_where_the_worker_looks(self):
        self.unreachable(f"http://{ADDRESS}:{PORT + 1}")

    def test_nobody_is_where_the_worker_looks(self):
        self.unreachable(f"http://10.77.0.99:{PORT}")


if __name__ == "__main__":
    main()
