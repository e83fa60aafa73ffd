#!/usr/bin/env python3
"""Holds the daemon against its own contract: schemathesis makes requests from GET /openapi.json, valid and broken ones,
alone and in sequences, and checks every answer. Ends with schemathesis' status.

usage: fuzz.py DAEMON [SCHEMATHESIS-OPTION...]

The daemon has users, data sets, a sweep, and experiments in every state; the requests come from an admin.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
from daemon import Daemon  # noqa: E402

SPHERE = {"generator": "sphere", "samples": 200}
SMALL = {"name": "small", "tags": ["fuzz", "keep"], "dataset": SPHERE, "model": {"kind": "mlp", "hidden": [8]},
         "training": {"epochs": 2}}
ENCODER = {"dataset": SPHERE, "model": {"kind": "ovr_encoder", "hidden": [8]}, "training": {"epochs": 2},
           "probe": {"kind": "logistic_regression", "epochs": 2}}
# Long enough to run, or to wait, as long as the requests come.
LONG = {**SMALL, "name": "long", "training": {"epochs": 100000, "threads": 1}}
CSV = b"a,b,kind\n" + b"".join(b"%d,%d,%s\n" % (i, i * i % 7, b"xy"[i % 2:i % 2 + 1]) for i in range(40))
IMAGES = b"".join(bytes([i % 10]) + bytes((i * j) % 251 for j in range(3072)) for i in range(20))


class Lab:
    """What is there before the first request."""

    def __init__(self, daemon, token):
        self.daemon, self.client, self.token = daemon, daemon.client(), token
        for split in ("train", "test"):
            self.call("PUT", f"/v1/datasets/table/{split}?format=csv&label=last", CSV, "text/csv")
            self.call("PUT", f"/v1/datasets/pictures/{split}?format=cifar10", IMAGES, "application/octet-stream")
            self.call("PUT", f"/v1/datasets/cifar10/{split}?format=cifar10", IMAGES * 40, "application/octet-stream")
        self.call("POST", "/v1/users", {"name": "ann", "role": "member"})
        done = self.submit(SMALL)
        for spec in (ENCODER, {**SMALL, "dataset": {"name": "table"}}, {**SMALL, "dataset": {"name": "pictures"}}):
            self.wait_for(self.submit(spec), "succeeded")
        self.wait_for(done, "succeeded")
        failing = {**SMALL, "optimizer": {"name": "sgd", "learning_rate": 1e30}, "training": {"epochs": 50}}
        self.wait_for(self.submit(failing), "failed")
        self.call("POST", "/v1/sweeps", {"name": "sweep", "base": SMALL, "grid": {"/model/hidden/0": [4, 8]}})
        self.wait_for(self.submit(LONG), "running")
        self.submit({**LONG, "dataset": {"name": "cifar10"}})  # so that it stays, for the examples of the contract
        for then in ("cancel", "pause"):
            self.call("POST", f"/v1/experiments/{self.submit(LONG)}/{then}")

    def call(self, method, path, body=None, kind="application/json"):
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        self.client.request(method, path, body, headers)
        answer = self.client.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text)

    def submit(self, spec):
        return self.call("POST", "/v1/experiments", spec)["id"]

    def wait_for(self, experiment, state):
        while (shown := self.call("GET", f"/v1/experiments/{experiment}"))["state"] != state:
            if shown["finished_at"]:
                sys.exit(f"an experiment was to be {state}, but is {shown['state']}: {shown['error']}")
            time.sleep(0.05)


def main():
    program, options = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="ovrd-fuzz.") as where:
        token_file = os.path.join(where, "token")
        with Daemon(program, where, "--admin-token-file", token_file, "--rate", "0", "--wrong-tokens", "0", "--workers",
                    "1", "--idle-timeout", "5") as daemon:
            with open(token_file, encoding="ascii") as file:
                token = file.read().strip()
            Lab(daemon, token)
            command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file",
                       os.path.join(ROOT, "schemathesis.toml"), "run", f"http://{daemon.address[0]}:{daemon.address[1]}/openapi.json",
                       "--header", f"Authorization: Bearer {token}", *options]
            status = subprocess.run(command, cwd=where, check=False).returncode
            if daemon.process.poll() is not None:
                sys.exit(f"the daemon ended with {daemon.process.returncode}:\n{daemon.last_words()}")
    sys.exit(status)


if __name__ == "__main__":
    main()
