"""examples/figure.ipynb, cell by cell against a real daemon, on few samples."""
import json
import os
import unittest

import ovrd
from notebook import run
from support import ROOT, Process, main

try:
    import numpy as np
except ImportError:
    np = None
try:
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib
except ImportError:
    matplotlib = None


def pictures(rng, n):
    """Images of three classes that a code can tell apart: each is bright in a plane of its own."""
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 60, (n, 3, 1024)) + 40
    images[np.arange(n), labels] += 100
    return np.concatenate([labels[:, None], images.reshape(n, 3072)], 1).astype(np.uint8).tobytes()


@unittest.skipUnless(np, "needs numpy")
class Notebook(unittest.TestCase):
    def test_figure(self):
        with open(os.path.join(ROOT, "examples", "figure.ipynb"), encoding="utf-8") as file:
            notebook = json.load(file)
        committed = {cell["id"]: cell.get("outputs") for cell in notebook["cells"]}
        with Process() as process:
            os.environ["OVRD_URL"] = process.url
            lab = ovrd.connect()
            rng = np.random.default_rng(3)
            for split, n in (("train", 300), ("test", 90)):
                lab.upload("small", split, pictures(rng, n), format="cifar10")
            names = run(notebook, {"dataset": "small", "samples": 200, "hidden": 20, "epochs": 2,
                                   "lambdas": [0, 1e-3, 1e-1], "repeats": 2}, () if matplotlib else ("plot",))
        self.assertEqual([p["/loss/ovr/lambda"] for p in names["points"]], [0, 1e-3, 1e-1])
        self.assertGreater(names["best"]["accuracy"], 0.5)
        self.assertEqual(names["codes"].shape, (90, 20))
        for cell in notebook["cells"]:
            if cell["id"] in ("wait", "codes") or (cell["id"] == "figure" and matplotlib):
                self.assertTrue(cell["outputs"], cell["id"])
        # What is in the repository was run, and is whole.
        self.assertTrue(committed["figure"] and committed["codes"])
        self.assertIn("image/png", committed["figure"][0]["data"])


if __name__ == "__main__":
    main()
