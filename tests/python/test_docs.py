"""The documents say what the program does: every kind of problem is explained and leads to its explanation, the table of
the spec is the schema's, every example is valid, every link leads somewhere."""
import importlib.util
import json
import os
import re
import subprocess
import tempfile
import unittest

import ovrd
from support import BUILD, ROOT, Process, main

DOCUMENTS = ["README.md", "clients/python/README.md", *("docs/" + n for n in sorted(os.listdir(os.path.join(ROOT, "docs"))))]


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.process = Process()
        cls.process.__enter__()
        cls.lab = ovrd.connect(cls.process.url)

    @classmethod
    def tearDownClass(cls):
        cls.lab.close()
        cls.process.__exit__()

    def test_every_kind_of_problem_is_explained(self):
        kinds = re.search(r"kinds\[\] = \{(.*?)\n\};", read("api/problem.c"), re.S)[1]
        slugs = set(re.findall(r'^    \{"([a-z-]+)", ', kinds, re.M))
        self.assertGreater(len(slugs), 20)
        explained = re.findall(r"^## (.*)$", read("docs/errors.md"), re.M)
        self.assertEqual(explained, sorted(slugs))
        for slug in slugs:
            answer = self.lab.request("GET", f"/problems/{slug}")
            text = answer.content.decode()
            self.assertTrue(text.startswith(f"## {slug}\n"), slug)
            self.assertEqual(text.count("\n## ") + 1, 1, slug)
            self.assertGreater(len(text), 60)

    def test_a_problem_leads_to_its_explanation(self):
        with self.assertRaises(ovrd.NotFound) as caught:
            self.lab.experiment("nobody")
        self.assertIn("## not-found", self.lab.request("GET", caught.exception.type).content.decode())
        for name in ("nothing", "stal", "%23%23", "a" * 200):
            with self.assertRaises(ovrd.NotFound):
                self.lab.request("GET", "/problems/" + name)

    def test_the_table_is_the_schemas(self):
        found = importlib.util.spec_from_file_location("table", os.path.join(ROOT, "scripts", "spec-table.py"))
        script = importlib.util.module_from_spec(found)
        found.loader.exec_module(script)
        made = script.table(self.lab.schema())
        self.assertGreater(made.count("\n"), 80)
        self.assertEqual(read("docs/spec.md").partition(script.MARK)[2], made,
                         "run: build/ovrctl schema | scripts/spec-table.py docs/spec.md")

    def test_examples_of_the_spec_are_valid(self):
        """As far as they can be here: a data set and an experiment that are not there are the only faults."""
        blocks = re.findall(r"(?:^    .*\n)+", read("docs/spec.md"), re.M)
        self.assertGreater(len(blocks), 12)
        for block in blocks:
            document = json.loads(block)
            try:
                self.lab.estimate(document)
            except ovrd.Invalid as error:
                for fault in error.faults:
                    self.assertRegex(fault.detail, "cifar10|k3f9m2xq7a1b", block)

    def test_the_quick_start_works_as_it_stands(self):
        """Every curl of it, in order, in a shell; only the address, the ids and the token's header are put in."""
        blocks = re.findall(r"(?:^(?:    .*)?\n)+", read("docs/quickstart.md").partition("## 2.")[2], re.M)
        commands = re.findall(r"^    (curl (?:[^'\"\n]|'[^']*'|\"[^\"]*\")*)", "".join(blocks), re.M)
        self.assertGreater(len(commands), 10)
        with tempfile.TemporaryDirectory() as directory:
            for split in ("train", "test"):
                with open(os.path.join(directory, split + ".csv"), "w") as file:
                    file.writelines(f"{i % 7},{i % 3},{i % 5},{i % 2}\n" for i in range(60))
            known = {"ID": "", "SWEEP": ""}
            for command in commands:
                made = subprocess.run(["bash", "-c", command.replace("http://127.0.0.1:8080", self.process.url)
                                       .replace("curl ", "curl -sS --fail-with-body ", 1)],
                                      cwd=directory, env={**os.environ, **known}, capture_output=True, text=True, timeout=60)
                self.assertEqual(made.returncode, 0, f"{command}\n{made.stdout}{made.stderr}")
                if "--json" in command:
                    known["SWEEP" if "/v1/sweeps" in command else "ID"] = json.loads(made.stdout)["id"]
                    if known["ID"] and not known["SWEEP"]:
                        self.lab.experiment(known["ID"]).wait(60)
            self.assertTrue(known["SWEEP"])
            for sweep in self.lab.sweeps():
                sweep.cancel()

    def test_links_lead_somewhere(self):
        for name in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(name)):
                path = os.path.normpath(os.path.join(ROOT, os.path.dirname(name), target))
                self.assertTrue(os.path.exists(path), f"{name}: {target}")

    def test_options_that_are_named_exist(self):
        known = {"--data-binary", "--cacert", "--profile", "--build", "--now",  # of curl, docker, systemctl
                 "--bind-to", "--mca", "--oversubscribe", "--mpi",  # of mpirun and srun
                 "--wait", "--wrap", "--chdir", "--ntasks", "--cpus-per-task", "--mem-per-cpu", "--time", "--no-requeue",
                 "--partition", "--account", "--constraint", "--signal"}  # and of sbatch
        for program, word in (("ovrd", "--help"), ("ovrctl", "help")):
            said = subprocess.run([os.path.join(BUILD, program), word], capture_output=True, text=True, check=True)
            known |= set(re.findall(r"(?<!\S)--[a-z-]+", said.stdout))
        for name in DOCUMENTS:
            if name.startswith("docs/"):
                for option in re.findall(r"(?<=[`\s])--[a-z][a-z-]*", read(name)):
                    self.assertIn(option, known, name)


if __name__ == "__main__":
    main()
