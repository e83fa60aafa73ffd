"""How ranks reach each other: within the machine, over its loopback, or between two network namespaces, whose only
connection is a cable of the kernel's (veth) that counts bytes."""
import contextlib
import json
import os
import shutil
import subprocess
import tempfile

MPIRUN = ["mpirun", "--bind-to", "none"]
# More ranks than cores: who waits gives its core away.
CROWDED = ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
SECONDS = 300


class Refused(Exception):
    """What was to be started ended with a fault; the text says which."""


def run(command, environment=None):
    """Its standard output."""
    try:
        done = subprocess.run(command, env={**ENVIRONMENT, **(environment or {})}, capture_output=True, text=True,
                              timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"{' '.join(command)} did not end within {SECONDS} s") from None
    if done.returncode:
        raise Refused(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


class Machine:
    """Ranks beside each other, over shared memory."""
    name = "shared memory"

    def mpirun(self, ranks):
        if ranks == 1:
            return []
        return [*MPIRUN, *(CROWDED if ranks > (os.cpu_count() or 1) else []), "-n", str(ranks)]

    def sent(self):
        """Bytes that have left each node so far: here there are none."""
        return []

    def __call__(self, ranks, *command):
        return run([*self.mpirun(ranks), *command])


class Loopback(Machine):
    """The same over TCP. Nothing is counted: everybody's traffic on this machine goes that way."""
    name = "TCP over loopback"

    def mpirun(self, ranks):
        return [*MPIRUN, "--mca", "btl", "tcp,self", "-n", str(ranks)]


class Namespaces:
    """Two network namespaces as two nodes. A context manager: they are made and removed. `mtu`: of the cable."""
    name = "TCP between namespaces"

    def __init__(self, mtu=1500):
        self.mtu, self.stack = mtu, contextlib.ExitStack()
        self.spaces = [f"ovrscale-{os.getpid()}-{node}" for node in (1, 2)]
        self.addresses = ["10.98.76.1", "10.98.76.2"]

    def __enter__(self):
        with self.stack:
            directory = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="ovrd-bench."))
            for space in self.spaces:
                run(["ip", "netns", "add", space])
                self.stack.callback(run, ["ip", "netns", "del", space])
                run(["ip", "-n", space, "link", "set", "lo", "up"])
            first, second = self.spaces
            run(["ip", "-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second])
            for space, address in zip(self.spaces, self.addresses):
                run(["ip", "-n", space, "addr", "add", address + "/24", "dev", "eth0"])
                run(["ip", "-n", space, "link", "set", "eth0", "mtu", str(self.mtu), "up"])
            self.agent = self.write_agent(directory)
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def write_agent(self, directory):
        """What mpirun takes for ssh: AGENT ADDRESS COMMAND... A node has a hostname of its own, else MPI would take
        the two for one."""
        path = os.path.join(directory, "agent")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\nspace={self.spaces[0]}\n[ $1 = {self.addresses[0]} ] || space={self.spaces[1]}\n"
                       "shift\nexec nsenter --net=/run/netns/$space unshare --uts "
                       "sh -c 'hostname \"$0\"; exec sh -c \"$1\"' $space \"$*\"\n")
        os.chmod(path, 0o700)
        return path

    def __call__(self, ranks, *command):
        assert ranks == len(self.spaces)
        words = [*MPIRUN, "--mca", "plm_rsh_agent", self.agent, "--mca", "oob_tcp_if_include", "eth0",
                 "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "eth0",
                 "-host", ",".join(self.addresses), "-n", str(ranks)]
        return run([self.agent, self.addresses[0], *words, *command])

    def sent(self):
        """Bytes that have left each node so far, with all headers."""
        shown = (run(["ip", "-n", space, "-s", "-j", "link", "show", "eth0"]) for space in self.spaces)
        return [json.loads(text)[0]["stats64"]["tx"]["bytes"] for text in shown]


def why_no_namespaces():
    """None where they can be made."""
    missing = [name for name in ("ip", "nsenter", "unshare", "hostname") if not shutil.which(name)]
    if missing:
        return f"{missing[0]} is not here (iproute2, util-linux)"
    try:
        with Namespaces():
            return None
    except Refused as refused:
        return f"no rights to make network namespaces (root has them): {str(refused).splitlines()[-1]}"
