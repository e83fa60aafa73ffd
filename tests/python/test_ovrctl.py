"""ovrctl as a whole: every route of the contract is reached by a command, settings, completion, manual pages."""
import array
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import tempfile
import termios
import time
import unittest

import ovrd
from proxy import Cutter
from support import BUILD, Process, main

OVRCTL = os.path.join(BUILD, "ovrctl")
SPEC = {"name": "small", "dataset": {"generator": "sphere", "samples": 300}, "model": {"kind": "mlp", "hidden": [8]},
        "training": {"epochs": 2}}
TABLE = "a,b,class\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n"


def run(*words, code=0, host=None, stdin="", **environment):
    """Its standard output; `code` is the exit code that it must have."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OVRD_")}
    done = subprocess.run([OVRCTL, *words], input=stdin, capture_output=True, text=True,
                          env={**inherited, "HOME": "/nowhere", **({"OVRD_URL": host} if host else {}), **environment})
    assert done.returncode == code, f"{words}: {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stderr


class Routes(unittest.TestCase):
    def test_every_route_has_a_command(self):
        with tempfile.TemporaryDirectory() as directory, \
                Process("--admin-token-file", os.path.join(directory, "token")) as process:
            proxy = Cutter(process.port)
            self.addCleanup(proxy.close)

            def call(*words, **more):
                return run(*words, host=proxy.url, OVRD_TOKEN_FILE=os.path.join(directory, "token"), **more)

            def write(name, text):
                path = os.path.join(directory, name)
                with open(path, "w") as file:
                    file.write(text)
                return path

            spec, table = write("spec.json", json.dumps(SPEC)), write("t.csv", TABLE)
            sweep = write("sweep.json", json.dumps({"name": "s", "base": SPEC, "grid": {"/training/seed": [1, 2]}}))
            endless = write("endless.json", json.dumps({**SPEC, "training": {"epochs": 100000}}))
            call("submit", spec, "--dry-run")
            id = call("submit", spec, "--watch").split()[0]
            for command in ("show", "log", "events", "metrics", "histogram", "histograms", "units", "tiling", "watch"):
                self.assertTrue(call(command, id), command)
            self.assertIn("hidden.0.weight", call("weights", id))
            self.assertEqual([len(json.loads(call(*words, id, "--json"))["series"]) for words in (
                ("metrics",), ("metrics", "--from", "2"), ("histograms", "--max-points", "1"))], [2, 1, 1])
            few = json.loads(call("histogram", id, "--split", "validation", "--epoch", "1", "--bins", "7", "--json"))
            self.assertEqual((few["split"], few["epoch"], len(few["counts"]) <= 7), ("validation", 1, True))
            call("weights", id, "hidden.0.weight", "--epoch", "last", "--rows", "0:2")
            call("compare", id + ":1", id)
            call("encode", id, "test")
            call("predict", id, "-", stdin=json.dumps({"samples": [[0, 0, 1]]}))
            call("model", id, "-o", os.path.join(directory, "m"))
            call("edit", id, '{"name": "other"}')
            call("filters", id, code=3)  # a sphere's samples are no pictures
            other = call("rerun", id, "--watch").split()[0]
            call("replay", id, "--watch")
            call("delete", other)
            self.assertNotIn(other, call("list", "--since", "2026-01-01", "--sort", "created"))
            run_on = call("submit", endless).strip()
            call("pause", run_on)
            lab = ovrd.connect(process.url, token_file=os.path.join(directory, "token"))
            while lab.experiment(run_on).state != "paused":
                time.sleep(0.02)
            call("resume", run_on)
            call("cancel", run_on)
            many = call("submit", sweep, "--watch").split()[0]
            self.assertEqual(len(call("sweep", many, "--csv").splitlines()), 3)
            call("sweep", many, "--cancel", code=3)  # it has ended
            self.assertIn(many, call("sweeps"))
            call("upload", "flowers", "train", table, "--label", "class")
            digits = write("x.npy", ""), write("y.npy", "")
            for path, values in zip(digits, ([[1.0, 2.0], [3.0, 4.0]], [0, 1])):
                with open(path, "wb") as file:
                    file.write(npy(values))
            call("upload", "digits", "test", *digits)
            self.assertIn("flowers", call("datasets"))
            self.assertIn("x 2, y 2", call("dataset", "flowers"))
            self.assertIn("a  b", call("preview", "flowers"))
            call("dataset", "flowers", "--remove")
            self.assertEqual(json.loads(call("schema"))["type"], "object")
            time.sleep(1)  # ages are told in whole seconds
            gone = json.loads(call("prune", "--older-than", "0m", "--state", "cancelled", "--json"))
            self.assertEqual(([e["id"] for e in gone["deleted"]], gone["kept"]), ([run_on], 0))
            call("backup")
            call("queue")
            self.check_people(call, directory)
            call("version")
            self.assertIn("ovrd_build_info", call("get", "/metrics"))
            call("get", "metrics", code=2)
            contract = json.loads(call("get", "/openapi.json"))
            self.check_all_are_there(contract, proxy.seen)

    def check_people(self, call, directory):
        self.assertIn("admin", call("whoami"))
        first = os.path.join(directory, "first")
        with open(first, "w") as file:
            file.write(call("user", "add", "mei", "--role", "viewer"))
        os.chmod(first, 0o600)
        call("user", "edit", "mei", '{"role": "member"}')
        self.assertIn("mei", call("user", "list"))
        self.assertIn('"mei"', call("get", "/v1/users/mei"))
        self.assertIn("member", call("whoami", "--token-file", first))
        token = call("token", "add", "mei", "--label", "x").split()[0]
        self.assertIn("mei", call("whoami", OVRD_TOKEN=token))  # wins over OVRD_TOKEN_FILE
        id = json.loads(call("token", "list", "mei", "--json"))["tokens"][0]["id"]
        call("get", f"/v1/users/mei/tokens/{id}")
        call("token", "revoke", "mei", id)
        call("user", "remove", "mei")
        self.assertIn("mei", call("audit"))

    def check_all_are_there(self, contract, seen):
        asked = {tuple(head.split("?")[0].split()[:2]) for head in seen}
        missing = []
        for path, methods in contract["paths"].items():
            pattern = re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + "$")
            for method in set(methods) & {"get", "post", "put", "patch", "delete"}:
                # What is left of GET needs no more than `get PATH`.
                if method == "get" and not path.startswith("/v1/"):
                    continue
                if methods[method].get("security") == [{"worker": []}]:  # no person's
                    continue
                if not any(m == method.upper() and pattern.match(p) for m, p in asked):
                    missing.append(f"{method.upper()} {path}")
        self.assertEqual(missing, [])


class Tables(unittest.TestCase):
    def seen(self, columns, *words):
        """Lines on a terminal so wide."""
        terminal, program = pty.openpty()
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen([OVRCTL, *words], stdout=program, stderr=subprocess.PIPE, text=True,
                                   env={"HOME": "/nowhere", "LC_ALL": "C.UTF-8"})
        os.close(program)
        output = b""
        try:
            while chunk := os.read(terminal, 4096):
                output += chunk
        except OSError:
            pass  # the other side is closed
        os.close(terminal)
        with process.stderr:
            said = process.stderr.read()
        self.assertEqual(process.wait(), 0)
        return output.decode().splitlines(), said

    def test_they_fit_the_terminal(self):
        with Process() as process:
            id = ovrd.connect(process.url).submit({**SPEC, "name": "n" * 90}).wait(60).id
            for words, enough in ((("metrics", id), 200), (("list",), 80)):
                for columns in (200, 80, 40, 10):
                    lines, said = self.seen(columns, *words, "--host", process.url)
                    # The first column stays, whatever it takes.
                    self.assertLessEqual(max(map(len, lines)), max(columns, 12), (words, columns))
                    self.assertEqual("too narrow for" in said, columns < enough, said)
            self.assertIn("near_zero", self.seen(80, "metrics", id, "--host", process.url)[0][0])
            self.assertIn("learning rate, seconds)", self.seen(60, "metrics", id, "--host", process.url)[1])
            self.assertIn("…", self.seen(80, "list", "--host", process.url)[0][1])
            self.assertIn("n" * 90, run("list", host=process.url))


def npy(values):
    """Of lists: numpy need not be there."""
    rows = values if isinstance(values[0], list) else None
    shape = (len(values), len(values[0])) if rows else (len(values),)
    flat = [v for row in values for v in row] if rows else values
    data = array.array("f" if rows else "q", flat).tobytes()
    header = str({"descr": "<f4" if rows else "<i8", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


class Settings(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = directory.name
        os.makedirs(os.path.join(self.home, "ovrd"))

    def write(self, text):
        with open(os.path.join(self.home, "ovrd", "config"), "w") as file:
            file.write(text)

    def complaint(self, code=4, **environment):
        return run("get", "/healthz", code=code, XDG_CONFIG_HOME=self.home, **environment)

    def test_what_wins(self):
        self.assertIn("127.0.0.1:8080", run("help"))
        self.write("# of the lab\n\n host = http://127.0.0.1:9/of-config \n")
        self.assertIn("127.0.0.1:9/of-config", self.complaint())
        self.assertIn("127.0.0.1:9/of-environment", self.complaint(OVRD_URL="http://127.0.0.1:9/of-environment"))
        said = run("get", "/x", "--host", "http://127.0.0.1:9/said", code=4, XDG_CONFIG_HOME=self.home)
        self.assertIn("127.0.0.1:9/said", said)
        os.makedirs(os.path.join(self.home, ".config"))
        os.rename(os.path.join(self.home, "ovrd"), os.path.join(self.home, ".config", "ovrd"))
        self.assertIn("of-config", run("get", "/x", code=4, HOME=self.home))

    def test_what_is_wrong(self):
        for text, why in (("host\n", "line 1: must be key = value"), ("\nhosts = x\n", "line 2: there is no setting"),
                          ("limit = 3\n", "there is no setting"), ("json = true\n", "there is no setting"),
                          ("host =\n", "host wants a URL"), ("x\0", "is not a text"), ("#" * 70000, "less than 64 KiB")):
            self.write(text)
            self.assertIn(why, self.complaint(2), text)

    def test_certificates_that_are_not_there(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = "https://127.0.0.1:%d" % server.getsockname()[1]
            said = run("get", "/x", "--host", url, "--ca-file", "/nowhere.pem", code=4)
            self.assertIn("/nowhere.pem", said)
            self.assertIn("/there.pem", self.complaint(OVRD_URL=url, OVRD_CA_FILE="/there.pem"))
            self.write("ca-file = ~/home.pem\n")
            self.assertIn(self.home + "/home.pem", self.complaint(OVRD_URL=url, HOME=self.home))


class Completion(unittest.TestCase):
    def offered(self, *words, host="http://127.0.0.1:9"):
        return [line.split("\t")[0] for line in run("complete", "--", *words, host=host).splitlines()]

    def test_words(self):
        commands = re.findall(r"^  ovrctl (\w+)", run("help"), re.M)
        self.assertEqual(self.offered(""), [c for c in commands if c != "help"])
        self.assertEqual(self.offered("wei"), ["weights"])
        self.assertEqual(self.offered("submit", ""), [":files"])
        self.assertIn("--watch", self.offered("submit", "x.json", "--"))
        self.assertNotIn("--watch", self.offered("list", "--"))
        self.assertEqual(self.offered("list", "--state", "f"), ["failed"])
        self.assertEqual(self.offered("list", "--state", "failed", "--lim"), ["--limit"])
        self.assertEqual(self.offered("upload", "mine", "t"), ["train", "test"])
        self.assertEqual(self.offered("upload", "mine", "train", ""), [":files"])
        self.assertEqual(self.offered("completion", ""), ["bash", "zsh", "fish"])
        self.assertEqual(self.offered("show", ""), [])

    def test_names_on_the_server(self):
        with Process() as process:
            lab = ovrd.connect(process.url)
            lab.upload("flowers", "train", TABLE.encode(), format="csv", label="class")
            run_, sweep = lab.submit(SPEC), lab.sweep({"base": SPEC, "grid": {"/training/seed": [5]}})
            self.assertIn(run_.id, self.offered("show", "", host=process.url))
            self.assertEqual(self.offered("show", run_.id[:6], host=process.url), [run_.id])
            self.assertEqual(self.offered("sweep", "", host=process.url), [sweep.id])
            self.assertEqual(self.offered("--host", process.url, "preview", ""), ["flowers"])
            self.assertEqual(self.offered("token", ""), ["list", "add", "revoke"])

    def test_in_bash(self):
        script = run("completion", "bash") + """
            COMP_WORDS=(%s list --state can) COMP_CWORD=3
            _ovrctl
            printf '%%s\\n' "${COMPREPLY[@]}"
        """ % OVRCTL
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("cancelled\n", ""))
        self.assertIn("bash, zsh or fish", run("completion", "csh", code=2))


class Manual(unittest.TestCase):
    def check(self, page, *names):
        plain = page.replace("\\-", "-")
        for name in names:
            self.assertIn(name, plain)
        try:
            done = subprocess.run(["man", "--warnings", "-l", "-"], input=page, capture_output=True, text=True,
                                  env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
        except FileNotFoundError:
            return
        if done.returncode == 0:  # else man is there only in part, as in containers
            self.assertEqual(done.stderr, "")
            self.assertIn("SEE ALSO", done.stdout)

    def test_pages_have_all_of_the_help(self):
        words = run("help")
        self.check(run("manual"), *re.findall(r"^  ovrctl (\w+)", words.replace("ovrctl help", ""), re.M),
                   *re.findall(r"^  (?:-\w, )?(--[a-z-]+)", words, re.M), "OVRD_URL", "host")
        ovrd_program = os.path.join(BUILD, "ovrd")
        said, page = (subprocess.run([ovrd_program, flag], capture_output=True, text=True).stdout
                      for flag in ("--help", "--manual"))
        names = re.findall(r"^  (--[a-z-]+) \S", said, re.M)
        self.assertIn("--data-dir", names)
        self.check(page, *(n for n in names if n not in ("--help", "--manual", "--version")))


if __name__ == "__main__":
    main()
