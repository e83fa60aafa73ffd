"""Models at work, held against numpy: codes, probabilities, the file of the whole model read without any of the
daemon's code, and filters mapped back to images."""
import io
import json
import struct
import sys
import unittest
import zlib

try:
    import numpy as np

    from daemon import Daemon
    from support import main
except ImportError as missing:
    print(f"1..1\nnot ok 1 # SKIP {missing} (Debian: python3-numpy)")
    sys.exit(0)

SIDE = 4  # of the images: 3 planes of 4×4
N_TRAIN, N_TEST = 600, 530  # the second: a whole block of rows and some more


def make_images(rng, n):
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 60, (n, 3, SIDE, SIDE)) + 40
    images[np.arange(n), labels] += 100
    images[:, :, :, 1:] += images[:, :, :, :-1] // 2
    return images.astype(np.uint8), labels.astype(np.uint8)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def read_safetensors(content):
    """As the format is described: a length, a header of JSON, numbers without gaps."""
    (n,) = struct.unpack("<Q", content[:8])
    assert n % 8 == 0 and content[8:9] == b"{"
    header = json.loads(content[8:8 + n])
    metadata = header.pop("__metadata__")
    assert all(isinstance(v, str) for v in metadata.values())
    tensors, end = {}, 0
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        assert entry["dtype"] == "F32" and first == end
        end = last
        numbers = np.frombuffer(content[8 + n + first:8 + n + last], "<f4")
        tensors[name] = numbers.reshape(entry["shape"]).astype(np.float64)
    assert 8 + n + end == len(content)
    return tensors, metadata


def read_png(content):
    """8 bits a channel, gray or RGB, not interlaced."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(content):
        (n,) = struct.unpack(">I", content[at:at + 4])
        kind, data = content[at + 4:at + 8], content[at + 8:at + 8 + n]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", data[:10])
        elif kind == b"IDAT":
            packed += data
        at += 12 + n
    assert depth == 8
    channels = {0: 1, 2: 3}[colour]
    stride, raw = width * channels, np.frombuffer(zlib.decompress(packed), np.uint8).astype(int)
    rows, before = [], np.zeros(stride, int)
    for line in raw.reshape(height, stride + 1):
        row = line[1:].copy()
        for i in range(stride):
            a = row[i - channels] if i >= channels else 0
            b, c = before[i], before[i - channels] if i >= channels else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, paeth)[line[0]]) % 256
        rows.append(row)
        before = row
    return np.array(rows).reshape(height, width, channels)


def prepare(tensors, x):
    for i in range(8):
        if f"preprocess.{i}.epsilon" in tensors:
            epsilon = tensors[f"preprocess.{i}.epsilon"]
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + epsilon)
        elif f"preprocess.{i}.scale" in tensors:
            x = (x - tensors[f"preprocess.{i}.mean"]) * tensors[f"preprocess.{i}.scale"]
        elif f"preprocess.{i}.components" in tensors:
            x = (x - tensors[f"preprocess.{i}.mean"]) @ tensors[f"preprocess.{i}.components"].T
    return x


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class Apply(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.daemon.__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        rng = np.random.default_rng(11)
        for split, n in ("train", N_TRAIN), ("test", N_TEST):
            images, labels = make_images(rng, n)
            for part, array in ("features", images), ("labels", labels):
                cls.daemon.call("PUT", f"/v1/datasets/small/{split}/{part}?format=npy", npy(array))
        cls.images, cls.labels = images, labels
        cls.x = images.reshape(n, -1).astype(np.float64)

    def run_model(self, model, preprocess, **more):
        return self.daemon.run(dict({"dataset": {"name": "small"}, "preprocess": preprocess, "model": model,
                                     "training": {"epochs": 3, "batch_size": 40}}, **more))

    def apply(self, what, experiment, body, query=""):
        content = self.daemon.call("POST", f"/v1/experiments/{experiment['id']}/{what}{query}", body)
        return np.load(io.BytesIO(content)) if content[:1] == b"\x93" else json.loads(content)

    def export(self, experiment):
        return read_safetensors(self.daemon.call("GET", f"/v1/experiments/{experiment['id']}/model"))

    def check_split(self, experiment):
        """The codes of the test split are those that its figures were taken of, to the bit."""
        codes = self.apply("encode", experiment, {"split": "test"})
        figures = experiment["result"]["sparsity"]
        self.assertEqual(codes.dtype, np.float32)
        self.assertEqual((codes == 0).sum(), round(figures["zero"] * codes.size))
        self.assertEqual((np.abs(codes) < np.float32(0.1)).sum(), round(figures["near_zero"] * codes.size))
        units = self.daemon.get(f"/v1/experiments/{experiment['id']}/units?limit=500")["units"]
        for unit in units:
            column = np.abs(codes[:, unit["unit"]])
            self.assertEqual(np.float32(unit["maximum"]), column.max())
            self.assertEqual(np.float32(unit["firing_rate"]), np.float32((column != 0).mean()))
        return codes

    def check_predictions(self, experiment, code, weight, bias, source):
        answer = self.apply("predict", experiment, {"split": "test"})
        expected = softmax(code @ weight.T + bias)
        self.assertEqual(answer["source"], source)
        np.testing.assert_allclose(answer["probabilities"], expected, rtol=2e-4, atol=1e-6)
        np.testing.assert_array_equal(answer["classes"], np.argmax(answer["probabilities"], 1))
        self.assertEqual(answer["accuracy"], np.mean(np.array(answer["classes"]) == self.labels))
        self.assertEqual(answer["accuracy"], experiment["result"]["accuracy"])
        packed = self.apply("predict", experiment, {"split": "test"}, "?format=npy")
        np.testing.assert_array_equal(packed, np.array(answer["probabilities"], np.float32))

    def test_encoder_and_probe(self):
        e = self.run_model({"kind": "ovr_encoder", "hidden": [150]}, [{"standardize": True}, {"pca": {"components": 20}}],
                           probe={"epochs": 4, "learning_rate": 0.01})
        codes = self.check_split(e)
        t, metadata = self.export(e)
        expected = np.maximum(prepare(t, self.x) @ t["encoder.weight"].T + t["encoder.bias"], 0)
        np.testing.assert_allclose(codes, expected, rtol=1e-3, atol=2e-4)
        self.check_predictions(e, codes.astype(np.float64), t["probe.weight"], t["probe.bias"], "probe")
        self.assertEqual(metadata["experiment"], e["id"])
        self.assertEqual(json.loads(metadata["spec"]), e["spec"])
        self.assertEqual(json.loads(metadata["preprocess"]), e["spec"]["preprocess"])

    def test_classifier_of_two_layers(self):
        e = self.run_model({"kind": "mlp", "hidden": [140, 33], "activation": "tanh", "dropout": 0.3},
                           [{"contrast": {"epsilon": 5}}, {"zca": {"epsilon": 0.1}}])
        codes = self.check_split(e)
        t, metadata = self.export(e)
        h = np.tanh(prepare(t, self.x) @ t["hidden.0.weight"].T + t["hidden.0.bias"])
        h = np.tanh(h @ t["hidden.1.weight"].T + t["hidden.1.bias"])
        np.testing.assert_allclose(codes, h, rtol=1e-3, atol=2e-4)
        self.check_predictions(e, codes.astype(np.float64), t["output.weight"], t["output.bias"], "classifier")
        self.assertEqual(metadata["kind"], "mlp")

    def test_kmeans_and_what_competes(self):
        e = self.run_model({"kind": "kmeans", "hidden": [9]}, [{"scale": 0.01}])
        codes = self.check_split(e)
        t, _ = self.export(e)
        x = prepare(t, self.x)
        z = np.sqrt(((x[:, None] - t["centroids"]) ** 2).sum(2))
        np.testing.assert_allclose(codes, np.maximum(z.mean(1, keepdims=True) - z, 0), rtol=1e-3, atol=1e-3)
        k = self.run_model({"kind": "autoencoder", "hidden": [25], "activation": "top_k", "top_k": 4, "tied": True},
                           [{"standardize": True}])
        self.assertEqual(int((self.check_split(k) != 0).sum(1).max()), 4)

    def test_samples_in_every_form(self):
        e = self.run_model({"kind": "ovr_encoder", "hidden": [30]}, [{"standardize": True}], probe=None)
        split = self.apply("encode", e, {"split": "test"})
        stored = self.apply("encode", e, {"dataset": {"name": "small"}, "split": "test"})
        np.testing.assert_array_equal(stored, split)
        some = self.images[:7]
        forms = [npy(some), npy(some.reshape(7, -1)), npy(some.astype("f4")), npy(some.astype(">f8")),
                 {"samples": some.reshape(7, -1).tolist()}]
        for body in forms:
            np.testing.assert_array_equal(self.apply("encode", e, body, "?format=npy"), split[:7])
            answer = self.apply("encode", e, body)
            self.assertEqual((answer["experiment"], answer["units"]), (e["id"], 30))
            np.testing.assert_array_equal(np.array(answer["codes"], np.float32), split[:7])
        text = self.apply("encode", e, {"split": "test"}, "?format=json")
        np.testing.assert_array_equal(np.array(text["codes"], np.float32), split)

    def check_filters(self, experiment, rows, points):
        """Tiles of rows (n×values), each in its own range."""
        png = read_png(self.daemon.call("GET", f"/v1/experiments/{experiment['id']}/filters.png?units=0:{len(rows)}"))
        across = int(np.ceil(np.sqrt(len(rows))))
        down = -(-len(rows) // across)
        self.assertEqual(png.shape, (down * (SIDE + 1) - 1, across * (SIDE + 1) - 1, 3))
        for i, row in enumerate(rows):
            most = np.abs(row).max()
            low, high = (row.min(), row.max()) if points else (-most, most)
            tile = ((row - low) / (high - low) * 255).reshape(3, SIDE, SIDE).transpose(1, 2, 0)
            y, x = i // across * (SIDE + 1), i % across * (SIDE + 1)
            self.assertLess(np.abs(png[y:y + SIDE, x:x + SIDE] - tile).max(), 1.01)

    def test_filters(self):
        e = self.run_model({"kind": "ovr_encoder", "hidden": [10]},
                           [{"standardize": True}, {"pca": {"components": 12, "whiten": True}}], probe=None)
        t, _ = self.export(e)
        back = np.linalg.pinv(t["preprocess.1.components"])
        self.check_filters(e, (t["encoder.weight"] @ back.T / t["preprocess.0.scale"])[:7], False)
        z = self.run_model({"kind": "ovr_encoder", "hidden": [10]}, [{"zca": {"epsilon": 0.5}}], probe=None)
        t, _ = self.export(z)
        self.check_filters(z, np.linalg.solve(t["preprocess.0.components"], t["encoder.weight"].T).T, False)
        k = self.run_model({"kind": "kmeans", "hidden": [5]}, [{"standardize": True}], probe=None)
        t, _ = self.export(k)
        self.check_filters(k, t["centroids"] / t["preprocess.0.scale"] + t["preprocess.0.mean"], True)


if __name__ == "__main__":
    main()
