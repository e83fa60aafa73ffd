"""A whole experiment over HTTP: from the upload to the probe's result, on a daemon of its own."""
import json
import time

from daemon import Daemon
from tools import fail


def upload(daemon, client, split, path):
    with open(path, "rb") as file:
        daemon.call(client, "PUT", f"/v1/datasets/cifar10/{split}?format=cifar10", file, "application/octet-stream")


def watch(daemon, client, identifier):
    """Polls until the experiment is over. Returns it, and when each phase was first seen."""
    seen = {}
    while True:
        experiment = daemon.call(client, "GET", f"/v1/experiments/{identifier}")
        if experiment["progress"]:
            seen.setdefault(experiment["progress"]["phase"], time.monotonic())
        if experiment["state"] == "succeeded":
            return experiment, seen
        if experiment["state"] not in ("queued", "running"):
            fail(f"the experiment {experiment['state']}: {experiment['error']}")
        time.sleep(0.1)


def run(path, directory, spec, train, test):
    """Seconds from the first byte of the upload to the result, and of each phase."""
    with Daemon(path, directory) as daemon:
        client = daemon.client()
        started = time.monotonic()
        upload(daemon, client, "train", train)
        upload(daemon, client, "test", test)
        uploaded = time.monotonic()
        posted = daemon.call(client, "POST", "/v1/experiments", json.dumps(spec).encode())
        experiment, seen = watch(daemon, client, posted["id"])
        ended = time.monotonic()
        metrics = daemon.call(client, "GET", f"/v1/experiments/{posted['id']}/metrics")
        client.close()
    training = seen.get("training", ended)
    probing = seen.get("probing", ended)
    return {"seconds": ended - started, "uploading": uploaded - started, "preparing": training - uploaded,
            "training": probing - training, "probing": ended - probing, "result": experiment["result"],
            "metrics": metrics}
