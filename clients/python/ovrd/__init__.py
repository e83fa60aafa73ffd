"""A client of ovrd, the network training service for sparse representation learning.

    import ovrd

    with ovrd.connect() as lab:                      # $OVRD_URL, $OVRD_TOKEN
        run = lab.submit("examples/demo.json").wait()
        print(run.result["accuracy"], run.weights("hidden.0.weight").shape)
"""
from .arrays import Tensors, read_npy, read_safetensors, write_npy
from .client import Client, Event, Experiment, Sweep, connect
from .errors import (
    Busy, Conflict, Denied, Failed, Fault, Invalid, NotFound, OvrdError, Refused, TimedOut, Unreachable,
)  # fmt: skip
from .version import VERSION as __version__

__all__ = [
    "Busy", "Client", "Conflict", "Denied", "Event", "Experiment", "Failed", "Fault", "Invalid", "NotFound",
    "OvrdError", "Refused", "Sweep", "Tensors", "TimedOut", "Unreachable", "connect", "read_npy",
    "read_safetensors", "write_npy",
]  # fmt: skip
