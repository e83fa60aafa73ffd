"""What surrounds the program: installation, container, service, monitoring. Each is held against what it speaks of: the
linker's list, the daemon's own /metrics, its settings."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import ovrd
from support import BUILD, ROOT, Process, main

try:
    import yaml
except ImportError:
    yaml = None


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as file:
        return file.read()


def settings():
    """The environment variables that ovrd knows."""
    said = subprocess.run([os.path.join(BUILD, "ovrd"), "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"environment (OVRD_\w+)", said))


class Installation(unittest.TestCase):
    def test_a_tree_that_works(self):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["make", "-s", "-C", ROOT, "install", "SANITIZE=" + os.path.basename(BUILD).replace("build", ""),
                            "PREFIX=/opt/ovrd", "DESTDIR=" + directory], check=True, capture_output=True)
            there = os.path.join(directory, "opt", "ovrd")
            found = {os.path.relpath(os.path.join(d, f), there) for d, _, files in os.walk(there) for f in files}
            for name in ("bin/ovrd", "bin/ovrctl", "share/man/man1/ovrctl.1", "share/man/man8/ovrd.8",
                         "share/bash-completion/completions/ovrctl", "lib/systemd/system/ovrd.service",
                         "share/ovrd/examples/figures/sphere.json"):
                self.assertIn(name, found)
            with open(os.path.join(there, "lib/systemd/system/ovrd.service")) as unit:
                self.assertIn("ExecStart=/opt/ovrd/bin/ovrd\n", unit.read())
            # The examples are found where they were installed.
            said = subprocess.run([os.path.join(there, "bin", "ovrctl"), "reproduce", "nothing"], capture_output=True,
                                  text=True)
            self.assertNotIn("examples are not beside", said.stderr)
            if shutil.which("systemd-analyze"):
                unit = os.path.join(there, "lib/systemd/system/ovrd.service")
                done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
                                      capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr + done.stdout[-400:])

    def test_one_version(self):
        version = re.search(r"^VERSION\s*:= (\S+)$", read("Makefile"), re.M)[1]
        self.assertEqual(ovrd.__version__, version)
        self.assertTrue(read("packaging", "debian", "changelog").startswith(f"ovrd ({version}) "))
        self.assertIn(f"image: ovrd:{version}\n", read("docker-compose.yml"))

    def test_debian_builds_with_what_make_installs(self):
        table = re.search(r"^build='\n(.*?)^'", read("scripts", "deps.sh"), re.M | re.S)[1]
        wanted = set(re.findall(r"^([^\s|]+)-dev\S* +header:", table, re.M)) - {"libc6"}
        control = read("packaging", "debian", "control").split("\n\n")[0]
        self.assertGreater(len(wanted), 6)
        self.assertEqual({name for name in wanted if name + "-dev" not in control}, set())

    def test_service_settings_exist(self):
        known = settings()
        for text in (read("packaging", "systemd", "ovrd.service"), read("packaging", "systemd", "ovrd.default"),
                     re.split(r"\nFROM", read("Dockerfile"))[-1]):
            used = set(re.findall(r"\b(OVRD_[A-Z_]+)=", text))
            self.assertTrue(used)
            self.assertEqual(used - known, set())


class Container(unittest.TestCase):
    def test_dockerfile(self):
        text = read("Dockerfile")
        self.assertEqual(len(re.findall(r"^FROM \S+:\S+", text, re.M)), len(re.findall(r"^FROM", text, re.M)))
        last = re.split(r"^FROM", text, flags=re.M)[-1]
        self.assertRegex(last, r"(?m)^USER ovrd$")
        self.assertRegex(last, r'(?m)^HEALTHCHECK .*CMD \["ovrctl", "get", "/readyz"')
        self.assertRegex(last, r"(?m)^VOLUME /var/lib/ovrd$")
        self.assertNotRegex(text, r"(?m)^ADD |curl .*\| *sh|sudo|:latest")
        for run in re.findall(r"^RUN (?:.*\\\n)*.*", text, re.M):
            if "apt-get install" in run or "deps.sh" in run:
                self.assertIn("rm -rf /var/lib/apt/lists/*", run)

    @unittest.skipUnless(shutil.which("dpkg") and shutil.which("readelf"), "needs Debian's dpkg and readelf")
    def test_it_has_the_libraries_that_the_programs_are_linked_with(self):
        installed = set(re.findall(r"[a-z0-9.+-]+", re.split(r"^FROM", read("Dockerfile"), flags=re.M)[-1]))
        for program in ("ovrd", "ovrctl"):
            path = os.path.join(BUILD, program)
            needed = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
            for name in re.findall(r"NEEDED.*\[(.*)\]", needed):
                if name.startswith(("libc.", "libm.", "ld-linux", "libasan", "libubsan", "libtsan", "libgcc", "libstdc")):
                    continue
                owner = subprocess.run(["dpkg", "-S", "*/" + name], capture_output=True, text=True).stdout
                packages = {line.split(":")[0] for line in owner.splitlines() if not line.startswith("diversion")}
                if name.startswith("libopenblas"):  # one of its alternatives
                    packages.add("libopenblas0-pthread")
                self.assertTrue(packages & installed, f"{program} needs {name}, of {packages}")

    @unittest.skipUnless(yaml, "needs python3-yaml")
    def test_compose(self):
        compose = yaml.safe_load(read("docker-compose.yml"))
        self.assertEqual([n for n, s in compose["services"].items() if "profiles" not in s], ["ovrd"])
        service = compose["services"]["ovrd"]
        self.assertTrue(service["read_only"])
        self.assertEqual(service["cap_drop"], ["ALL"])
        self.assertLessEqual(set(service["environment"]), settings())
        volumes = set()
        for name, one in compose["services"].items():
            self.assertNotRegex(one["image"], r":latest$|^[^:]*$", name)
            for port in one.get("ports", []):
                if name != "tls":
                    self.assertTrue(port.startswith("127.0.0.1:"), f"{name} {port}")
            for volume in one.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue(os.path.exists(os.path.join(ROOT, source)), source)
                else:
                    volumes.add(source)
        self.assertEqual(volumes, set(compose["volumes"]))

    def test_compose_as_docker_reads_it(self):
        for command in (["docker", "compose"], ["docker-compose"]):
            if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
                break
        else:
            self.skipTest("needs docker compose")
        with tempfile.NamedTemporaryFile() as token:
            done = subprocess.run([*command, "--profile", "tls", "--profile", "monitoring", "config"], cwd=ROOT,
                                  capture_output=True, text=True,
                                  env={**os.environ, "OVRD_METRICS_TOKEN_FILE": token.name, "OVRD_SITE": "a.b.org"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("a.b.org", done.stdout)


def names_of(expression):
    """The metrics of a PromQL expression: what is neither in braces nor a function, keyword or label list."""
    plain = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", expression)
    plain = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", plain)
    words = re.findall(r"[a-zA-Z_:][\w:]*\b(?!\s*\()", plain)
    return {w for w in words if w not in ("and", "or", "unless", "by", "e9", "group_left", "group_right")}


class Monitoring(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as directory:
            token = os.path.join(directory, "token")
            with Process("--admin-token-file", token, "--slurm", "on", "--worker-url", "http://ovrd.lab:8080",
                         "--slurm-directory", os.path.join(ROOT, "tests/slurm/fake")) as process:
                lab = ovrd.connect(process.url, token_file=token)
                # Who owns what is told of those who have something under way.
                lab.submit({"dataset": {"generator": "sphere", "samples": 200}, "model": {"kind": "mlp", "hidden": [4]},
                            "training": {"epochs": 100000}})
                text = lab.request("GET", "/metrics").content.decode()
        types = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M)
        cls.metrics = {name + end for name, kind in types
                       for end in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}
        cls.labels = set(re.findall(r'(\w+)="', text))

    def check(self, expressions):
        self.assertTrue(expressions)
        for expression in expressions:
            names = names_of(expression)
            self.assertTrue(names, expression)
            self.assertEqual(names - self.metrics - {"up"}, set(), expression)
            for label in re.findall(r"(?:by \(|\{)(\w+)", expression):
                self.assertIn(label, self.labels | {"job"}, expression)

    def test_the_board_asks_for_metrics_that_exist(self):
        board = json.loads(read("packaging", "grafana", "ovrd.json"))
        self.check([target["expr"] for panel in board["panels"] for target in panel["targets"]])
        ids = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in board["panels"]:
            self.assertEqual(panel["datasource"]["uid"], "prometheus")

    @unittest.skipUnless(yaml, "needs python3-yaml")
    def test_the_alerts_do_too(self):
        rules = yaml.safe_load(read("packaging", "prometheus", "alerts.yml"))["groups"][0]["rules"]
        self.check([rule["expr"] for rule in rules])
        source = yaml.safe_load(read("packaging", "grafana", "provisioning", "datasources", "prometheus.yml"))
        self.assertEqual(source["datasources"][0]["uid"], "prometheus")

    @unittest.skipUnless(shutil.which("promtool"), "needs promtool (Debian: prometheus)")
    def test_promtool(self):
        where = os.path.join(ROOT, "packaging", "prometheus")
        with tempfile.TemporaryDirectory() as directory:
            shutil.copy(os.path.join(where, "alerts.yml"), directory)
            token = os.path.join(directory, "token")
            open(token, "w").close()
            config = os.path.join(directory, "prometheus.yml")
            with open(config, "w") as file:
                file.write(read("packaging", "prometheus", "prometheus.yml").replace("/run/secrets/metrics-token", token))
            done = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    main()
