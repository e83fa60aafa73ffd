#!/usr/bin/env python3
"""The daemon deletes by itself what ended long ago, when its settings say so and not before."""
import json
import os
import sqlite3
import time
import unittest
import urllib.request

from support import Process, main

SPEC = {"dataset": {"generator": "sphere", "samples": 50}, "model": {"kind": "mlp", "hidden": [4]},
        "training": {"epochs": 1}}
DAY_MS = 86400000


class Retention(unittest.TestCase):
    def ask(self, daemon, path, body=None):
        request = urllib.request.Request(daemon.url + path, json.dumps(body).encode() if body else None,
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def ids(self, daemon):
        return {e["id"] for e in self.ask(daemon, "/v1/experiments")["experiments"]}

    def finished(self, daemon, **more):
        one = self.ask(daemon, "/v1/experiments", {**SPEC, **more})["id"]
        while not self.ask(daemon, f"/v1/experiments/{one}")["finished_at"]:
            time.sleep(0.02)
        return one

    def test_old_ones_go(self):
        with Process() as daemon:
            old, kept = self.finished(daemon), self.finished(daemon, tags=["keep"])
            daemon.stop()
            with sqlite3.connect(os.path.join(daemon.directory.name, "data", "ovrd.sqlite3")) as database:
                database.execute("UPDATE experiment SET finished_at = finished_at - ?", (8 * DAY_MS,))
            database.close()
            daemon.start()
            young = self.finished(daemon)
            time.sleep(0.5)
            self.assertEqual(self.ids(daemon), {old, kept, young})
            daemon.stop()
            daemon.options = ("--retention-days", "7")
            daemon.start()
            until = time.monotonic() + 20
            while old in self.ids(daemon) and time.monotonic() < until:
                time.sleep(0.05)
            self.assertEqual(self.ids(daemon), {kept, young})
            self.assertEqual(set(os.listdir(os.path.join(daemon.directory.name, "data", "experiments"))), {kept, young})
            audit = self.ask(daemon, f"/v1/audit?object={old}")["entries"]
            self.assertEqual([(e["action"], e["user"]) for e in audit][0], ("experiment.delete", None))
            self.assertIn(f"experiment={old} deleted by retention: it succeeded more than 7 days ago",
                          daemon.last_words())


if __name__ == "__main__":
    main()
