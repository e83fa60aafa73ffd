"""The dashboard in a real browser, on a daemon of its own. Speaks TAP; pictures of all pages go to build/web."""
import os
import signal
import sqlite3
import sys
import tempfile
import time
import unittest

try:
    import numpy as np
    from selenium.webdriver.common.keys import Keys

    from browser import WIDTHS, Browser, Daemon, call
    from support import main
except ImportError as missing:
    print(f"1..1\nnot ok 1 # SKIP {missing} (Debian: python3-selenium, python3-numpy)")
    sys.exit(0)
if not (os.path.exists("/usr/bin/chromium") and os.path.exists("/usr/bin/chromedriver")):
    print("1..1\nnot ok 1 # SKIP no browser (Debian: chromium, chromium-driver)")
    sys.exit(0)

EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
SPHERE = {"generator": "sphere", "samples": 600, "latitudes": 2, "sectors": 4, "classes": 4}
ENCODER = {"name": "sphere-encoder", "tags": ["sphere"], "dataset": SPHERE, "model": {"kind": "ovr_encoder", "hidden": [24]},
           "loss": {"ovr": {"lambda": 1e-5}}, "optimizer": {"learning_rate": 0.02}, "training": {"epochs": 12},
           "probe": {"epochs": 5, "learning_rate": 0.001}, "notes": "Points on the sphere, without labels."}
LAMBDAS = [0, 1e-6, 1e-5, 1e-4, 1e-3]
LONG = {"name": "long", "dataset": {"generator": "sphere", "samples": 4000}, "model": {"kind": "mlp", "hidden": [64]},
        "training": {"epochs": 100000, "threads": 1}}


class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon().__enter__()
        random = np.random.default_rng(1)
        for split, n in (("train", 300), ("test", 60)):
            labels = np.arange(n) % 10
            pixels = np.clip(labels[:, None] * 20 + random.integers(0, 60, (n, 3072)), 0, 255).astype(np.uint8)
            cls.daemon.upload("images", split, pixels, labels)
        run = cls.daemon.run
        cls.encoder = run(ENCODER)
        cls.images = run({"name": "of-images", "dataset": {"name": "images"}, "model": {"kind": "mlp", "hidden": [16]},
                          "optimizer": {"learning_rate": 1e-4}, "training": {"epochs": 6}})
        cls.evil = run({**ENCODER, "name": EVIL, "tags": [EVIL[:60], "x"], "notes": EVIL, "training": {"epochs": 2}})
        cls.sweep = call(cls.daemon, "POST", "/v1/sweeps", {
            "name": "lambdas", "base": ENCODER, "repeats": 2,
            "points": [{"loss": {"ovr": {"lambda": v}}} for v in LAMBDAS] + [{"model": {"kind": "mlp", "hidden": [8]}, "optimizer": {"name": "sgd", "learning_rate": 1e30}}]})
        deadline = time.time() + 60
        while call(cls.daemon, "GET", f"/v1/sweeps/{cls.sweep['id']}")["state"] == "running":
            assert time.time() < deadline
            time.sleep(0.05)
        cls.browser = Browser().__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.browser.__exit__()
        cls.daemon.__exit__()

    def setUp(self):
        self.browser.set_width(1280)
        self.browser.complaints()

    def tearDown(self):
        for e in call(self.daemon, "GET", "/v1/experiments?limit=500")["experiments"]:
            if e["name"] == "long" and e["finished_at"] is None:
                call(self.daemon, "POST", f"/v1/experiments/{e['id']}/cancel")

    def open(self, place):
        self.browser.open(self.daemon.port, place)

    def get(self, path):
        return call(self.daemon, "GET", path)

    def assert_quiet(self):
        self.assertEqual(self.browser.complaints(), [])

    # ---- What people do ----

    def test_a_form_is_submitted_and_watched_until_it_ends(self):
        b = self.browser
        self.open("/new")
        b.click("Start anew")
        b.type(b.field("/name"), "from-the-form")
        b.type(b.field("/tags"), "one, two")
        b.type(b.field("/model/hidden"), "32")
        b.type(b.field("/dataset/samples"), "20000")
        b.type(b.field("/training/epochs"), "800")
        b.wait_text("alone on this machine")
        self.assertIn('"hidden": [32]', b.one(".editor").get_attribute("value"))
        b.click("Submit")
        b.wait_text("from-the-form", "h1")
        # Live, without being loaded again: first it runs and its epochs grow, then it has a result.
        b.run("window.same = true")
        b.wait_text("Epoch ")
        epochs = "return Math.max(0, ...[...document.querySelectorAll('.u-legend .u-value')].slice(0, 1).map((e) => Number(e.textContent)))"
        first = b.wait(lambda: b.run(epochs), "first epoch")
        b.wait(lambda: b.run(epochs) > first, "later epoch")
        b.wait_text("succeeded", ".page-head", 60)
        b.wait(lambda: b.run(epochs) == 800, "last epoch")
        self.assertTrue(b.run("return window.same"))
        experiment = self.get("/v1/experiments?name=from-the-form")["experiments"][0]
        self.assertEqual(experiment["tags"], ["one", "two"])
        b.wait_text(f"{100 * experiment['result']['accuracy']:.2f} %", ".figures")
        self.assertGreaterEqual(len(b.all(".chart canvas")), 8)
        self.assert_quiet()

    def test_a_fault_is_shown_at_its_field(self):
        b = self.browser
        self.open("/new")
        b.click("Start anew")
        b.type(b.field("/model/hidden"), "-3")
        b.wait(lambda: b.field("/model/hidden").get_attribute("aria-invalid"), "mark at the field")
        fault = b.one("#" + b.field("/model/hidden").get_attribute("aria-describedby").split()[-1])
        self.assertIn("1..65536", fault.text)
        self.assertFalse(b.button("Submit").is_enabled())
        self.assertNotEqual(b.driver.switch_to.active_element.tag_name, "body")
        b.type(b.field("/model/hidden"), "8")
        b.wait(lambda: b.button("Submit").is_enabled(), "good spec")
        # The other way round, and what is no JSON.
        editor = b.one(".editor")
        editor.clear()
        editor.send_keys('{"dataset": {"generator": "sphere"}, "model": {"kind": "mlp", "hidden": [7, 9]}, "training": {"epochs": 3}}')
        b.wait(lambda: b.field("/training/epochs").get_attribute("value") == "3", "value of the JSON in the form")
        self.assertEqual(b.field("/model/hidden").get_attribute("value"), "7, 9")
        editor.send_keys("}")
        b.wait_text("not JSON yet")
        refused = [c for c in b.complaints() if "422" not in c]  # the dry run's own answer
        self.assertEqual(refused, [])

    def test_two_runs_are_compared(self):
        b = self.browser
        self.open("/experiments?name=sphere-encoder")
        other = self.daemon.run({**ENCODER, "name": "sphere-encoder-2", "loss": {"ovr": {"lambda": 1e-3}}})
        for name in ("sphere-encoder", "sphere-encoder-2"):
            b.one(f"input[aria-label='Compare {name}']").click()
        b.click("Compare 2")
        b.settle()
        distance = self.get(f"/v1/compare/histograms?a={other['id']}&b={self.encoder['id']}")
        b.wait_text("Distance of the histograms")
        b.wait(lambda: f"{distance['ks']:.3f}"[:5] in b.text(), "the KS distance")
        b.wait_text("loss.ovr.lambda")
        self.assertGreaterEqual(len(b.all(".chart canvas")), 7)
        self.assert_quiet()

    def test_a_daemon_that_restarts_is_survived(self):
        b = self.browser
        experiment = call(self.daemon, "POST", "/v1/experiments", LONG)
        self.open(f"/experiments/{experiment['id']}")
        b.wait_text("Epoch ")
        b.wait(lambda: b.all(".chart canvas"), "curve")
        self.daemon.stop(signal.SIGKILL)
        b.wait(lambda: b.one(".banner").is_displayed(), "banner")
        self.daemon.start()
        b.wait(lambda: not b.one(".banner").is_displayed(), "connection", 30)
        b.wait_text("Epoch ", seconds=30)
        epoch = "return Number(document.querySelector('.u-legend .u-value').textContent.replace(/\\D/g, ''))"
        before = b.run(epoch)
        b.wait(lambda: b.run(epoch) > before, "epoch after the restart", 30)
        b.click("Cancel")
        b.click("Cancel it")
        b.wait_text("cancelled", ".page-head")
        # A page that is opened meanwhile comes by itself, and so does the whole of it.
        self.daemon.stop(signal.SIGKILL)
        b.run("location.hash = '#/datasets'")
        b.wait_text("No connection")
        self.daemon.start()
        b.wait(lambda: not b.one(".banner").is_displayed(), "connection", 30)
        b.wait_text("images")
        errors = [c for c in b.complaints() if "ERR_CONNECTION_REFUSED" not in c and "ERR_INCOMPLETE_CHUNKED" not in c and "ERR_CONNECTION_RESET" not in c and "ERR_EMPTY_RESPONSE" not in c]
        self.assertEqual(errors, [])

    def test_buttons_pause_edit_and_delete(self):
        b = self.browser
        experiment = call(self.daemon, "POST", "/v1/experiments", LONG)
        self.open(f"/experiments/{experiment['id']}")
        b.wait_text("running", ".page-head")
        b.click("Pause")
        b.wait_text("paused", ".page-head")
        b.click("Edit")
        b.type(b.one("dialog input"), "renamed")
        b.click("Save", "dialog")
        b.wait_text("renamed", "h1")
        b.click("Resume")
        b.wait_text("running", ".page-head")
        b.click("Cancel")
        b.click("Cancel it", "dialog")
        b.wait_text("cancelled", ".page-head")
        b.click("Delete")
        b.click("Delete it", "dialog")
        b.wait_text("Experiments", "h1")
        self.assertNotIn(experiment["id"], [e["id"] for e in self.get("/v1/experiments")["experiments"]])
        self.assert_quiet()

    def test_a_data_set_is_uploaded_and_seen(self):
        b = self.browser
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write("width,height,kind\n" + "".join(f"{i},{i * 0.5},{'ab'[i % 2]}\n" for i in range(40)))
            file.flush()
            self.open("/datasets")
            b.one("form input").send_keys("flowers")
            b.one("form input[type=file]").send_keys(file.name)
            b.click("Upload")
            b.wait_text("flowers train is stored")
        b.wait(lambda: [a for a in b.all("td a") if a.text == "flowers"], "row of flowers")[0].click()
        b.wait_text("flowers", "h1")
        b.wait_text("width")
        self.assertIn("a: 20", b.text())
        b.click("New experiment", "main")
        b.wait(lambda: b.field("/dataset/name").get_attribute("value") == "flowers", "the data set in the form")
        b.wait_text("has no test split")
        b.complaints()  # the dry run's own answer
        self.assert_quiet()
        self.open("/datasets/flowers")
        b.click("Delete")
        b.click("Delete it", "dialog")
        b.wait_text("Data sets", "h1")
        self.assertNotIn("flowers", [d["name"] for d in self.get("/v1/datasets")["datasets"]])

    def test_one_that_is_deleted_while_it_is_watched(self):
        b = self.browser
        experiment = call(self.daemon, "POST", "/v1/experiments", LONG)
        path = f"/v1/experiments/{experiment['id']}"
        self.open(f"/experiments/{experiment['id']}")
        b.wait_text("Epoch ")
        b.run("document.hidden || Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        b.run("document.dispatchEvent(new Event('visibilitychange'))")
        call(self.daemon, "POST", f"{path}/cancel")
        b.wait(lambda: self.get(path)["finished_at"], "end")
        call(self.daemon, "DELETE", path)
        b.run("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
        b.run("document.dispatchEvent(new Event('visibilitychange'))")
        b.wait_text(experiment["id"], ".problem")
        self.assertFalse(b.one(".live").is_displayed())

    def test_a_model_is_downloaded(self):
        b = self.browser
        with tempfile.TemporaryDirectory() as directory:
            b.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": directory})
            self.open(f"/experiments/{self.encoder['id']}/files")
            b.click("Model (safetensors)")
            path = os.path.join(directory, "sphere-encoder.safetensors")
            b.wait(lambda: os.path.exists(path), "file")
            with open(path, "rb") as file:
                self.assertEqual(file.read(), self.daemon.call("GET", f"/v1/experiments/{self.encoder['id']}/model"))
        self.assert_quiet()

    def test_the_figure_of_a_sweep(self):
        b = self.browser
        self.open(f"/sweeps/{self.sweep['id']}")
        b.settle()
        b.wait_text("Accuracy and near zero against λ")
        table = self.get(f"/v1/sweeps/{self.sweep['id']}")
        best = max((p for p in table["points"] if p["result"]), key=lambda p: p["result"]["accuracy"])
        self.assertIn(f"{100 * best['result']['accuracy']:.2f} %", b.text(".figures"))
        rows = b.all("tr[data-point]")
        self.assertEqual(len(rows), len(LAMBDAS) + 1)
        self.assertIn(table["points"][-1]["error"]["detail"][:40], rows[-1].text)
        # λ on a logarithmic axis, zero apart; a click on a point leads to its row.
        over = b.one(".u-over")
        x = b.run("const u = document.querySelector('.u-over'); return [u.clientWidth, u.clientHeight]")
        b.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **self.spot(over, x, 0.02)})
        for kind in ("mousePressed", "mouseReleased"):
            b.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "button": "left", "clickCount": 1, **self.spot(over, x, 0.02)})
        lit = b.wait(lambda: b.all("tr.lit"), "row of the point")[0]
        self.assertEqual(lit.get_attribute("data-point"), "0")
        self.assertEqual(len(b.all(".pline")), len(LAMBDAS))
        self.assert_quiet()

    @staticmethod
    def spot(element, size, share):
        place = element.rect
        scrolled = element.parent.execute_script("return scrollY")
        return {"x": place["x"] + size[0] * (share + 0.02), "y": place["y"] - scrolled + size[1] / 2}

    def test_with_many_experiments_the_list_is_drawn_in_part(self):
        b = self.browser
        n = 700
        sweep = call(self.daemon, "POST", "/v1/sweeps", {
            "name": "many", "base": {"dataset": {**SPHERE, "samples": 20}, "model": {"kind": "identity"}, "probe": None},
            "grid": {"/dataset/seed": list(range(1, n + 1))}})
        self.open("/experiments?name=many")
        most = 0
        last = sweep["points"][0]["experiments"][0]["id"]
        deadline = time.time() + 30
        while not b.all(f"a[href='#/experiments/{last}']"):
            self.assertLess(time.time(), deadline, f"{len(b.all('.row'))} rows")
            b.run("scrollTo(0, document.documentElement.scrollHeight)")
            most = max(most, b.run("return document.querySelectorAll('.row').length"))
            time.sleep(0.05)
        self.assertLess(most, 90)
        self.assertGreater(b.run("return document.documentElement.scrollHeight"), n * 50)
        self.assertEqual(b.one("[role=table]").get_attribute("aria-rowcount"), str(n + 1))
        self.assert_quiet()

    # ---- For everybody ----

    def test_nothing_that_people_write_is_run(self):
        b = self.browser
        e = self.evil
        for place in ("/experiments", f"/experiments/{e['id']}", f"/experiments/{e['id']}/spec", f"/experiments/{e['id']}/log",
                      f"/compare?ids={e['id']},{self.encoder['id']}", f"/new?from={e['id']}", f"/experiments?tag={EVIL[:60].replace('#', '')}"):
            self.open(place)
            b.settle()
            self.assertIn("<img src=x", b.text() + b.run("return [...document.querySelectorAll('input, textarea')].map((e) => e.value).join()"), place)
            self.assertIsNone(b.run("return window.hacked"), place)
            self.assertEqual([i.get_attribute("src") for i in b.all("main img") if "blob:" not in i.get_attribute("src")], [], place)
        self.open(f"/experiments/{e['id']}")
        b.click("Edit")
        self.assertEqual(b.one("dialog input").get_attribute("value"), EVIL)
        b.one("dialog input").send_keys(Keys.ESCAPE)
        self.assert_quiet()

    def test_by_keyboard_alone(self):
        b = self.browser
        self.open(f"/experiments/{self.encoder['id']}")
        b.settle()
        press = lambda key: b.driver.switch_to.active_element.send_keys(key)  # noqa: E731
        press(Keys.TAB)
        self.assertEqual(b.driver.switch_to.active_element.text, "Skip to content")
        press(Keys.ENTER)
        self.assertEqual(b.driver.switch_to.active_element.tag_name, "h1")
        for _ in range(20):
            press(Keys.TAB)
            seen = b.run("const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2")
            self.assertTrue(seen, b.driver.switch_to.active_element.get_attribute("outerHTML")[:100])
            if b.driver.switch_to.active_element.get_attribute("role") == "tab":
                break
        press(Keys.ARROW_RIGHT)
        self.assertEqual(b.driver.switch_to.active_element.text, "Activations")
        b.wait_text("exactly 0")
        press(Keys.TAB)
        self.assertEqual(b.driver.switch_to.active_element.get_attribute("role"), "tabpanel")
        theme = b.run("return document.documentElement.dataset.theme")
        b.one("button[aria-label$=theme]").send_keys(Keys.ENTER)
        self.assertNotEqual(b.run("return document.documentElement.dataset.theme"), theme)

    def pages(self):
        encoder, images = self.encoder["id"], self.images["id"]
        return {
            "experiments": "/experiments", "curves": f"/experiments/{encoder}", "activations": f"/experiments/{encoder}/activations",
            "units": f"/experiments/{encoder}/units", "sphere": f"/experiments/{encoder}/sphere", "filters": f"/experiments/{images}/filters",
            "spec": f"/experiments/{encoder}/spec", "log": f"/experiments/{encoder}/log", "files": f"/experiments/{encoder}/files",
            "compare": f"/compare?ids={encoder},{images}", "compare-none": "/compare", "sweeps": "/sweeps", "sweep": f"/sweeps/{self.sweep['id']}",
            "queue": "/queue", "new": "/new", "new-sweep": f"/new?sweep={self.sweep['id']}", "datasets": "/datasets", "dataset": "/datasets/images",
            "none": "/experiments?name=there-is-none"}

    def test_every_page_in_both_themes_and_widths(self):
        b = self.browser
        faults = {}
        for name, place in self.pages().items():
            self.open(place)
            for width in WIDTHS:
                b.set_width(width)
                for theme in ("light", "dark"):
                    b.set_theme(theme)
                    b.settle()
                    found = b.faults() + b.complaints()
                    if found:
                        faults[f"{name} {width} {theme}"] = found[:5]
                    b.picture(f"{name}-{width}-{theme}")
        self.assertEqual(faults, {})

    def test_a_place_that_is_not_there(self):
        b = self.browser
        self.open("/")
        b.run("location.hash = '#/nowhere'")
        b.wait_text("There is no page /nowhere")
        b.wait_text("Not found", "h1")
        self.assert_quiet()
        b.run("location.hash = '#/experiments/000000000000'")
        b.wait_text("000000000000", ".problem")
        b.run("location.hash = '#/compare?ids=' + arguments[0] + ',000000000000'", self.encoder["id"])
        b.wait_text("Not there, or not for you to see: 000000000000.")
        b.run("location.hash = '#/experiments/..%2F..%2Fv1%2Fqueue'")  # no way to another route
        b.wait_text("there is an encoded slash", ".problem")

    def test_priorities_are_raised_in_the_queue(self):
        b = self.browser
        made = [call(self.daemon, "POST", "/v1/experiments", LONG) for _ in range(8)]
        self.open("/queue")
        b.wait_text("Waiting")
        waiting = self.get("/v1/queue")["waiting"]
        self.assertTrue(waiting)
        b.wait_text(waiting[0]["reason"].split(";")[0])
        last = waiting[-1]
        b.wait(lambda: b.all("tbody button"), "button")[-1].click()
        b.wait(lambda: self.get(f"/v1/experiments/{last['id']}")["priority"] == 1, "priority 1")
        self.assertIn(last["id"], [e["id"] for e in made])
        self.assert_quiet()


    def test_the_form_shows_what_the_kind_uses(self):
        b = self.browser
        self.open("/new")
        b.click("Start anew")
        pointers = lambda: {e.get_attribute("data-pointer") for e in b.all("[data-pointer]")}  # noqa: E731
        options = lambda pointer: [o.get_attribute("textContent") for o in b.field(pointer).find_elements("tag name", "option")]  # noqa: E731

        def choose(pointer, text):
            b.run("const s = arguments[0]; s.value = [...s.options].find((o) => o.text === arguments[1]).value; s.dispatchEvent(new Event('change'))",
                  b.field(pointer), text)
        self.assertLessEqual({"/dataset/name", "/dataset/samples", "/loss/activity", "/optimizer/beta1"}, pointers())
        self.assertFalse({"/model/top_k", "/model/code", "/dataset/train_limit", "/optimizer/nesterov"} & pointers())
        self.assertIn("glorot", options("/model/init"))
        choose("/model/activation", "top_k")
        choose("/optimizer/name", "sgd")
        choose("/dataset/name", "images")
        self.assertLessEqual({"/model/top_k", "/dataset/train_limit", "/optimizer/nesterov"}, pointers())
        self.assertFalse({"/dataset/samples", "/optimizer/beta1"} & pointers())
        editor = b.one(".editor")
        editor.clear()
        editor.send_keys('{"dataset": {"generator": "sphere"}, "model": {"kind": "kmeans", "hidden": [5]}}')
        b.wait(lambda: "/model/code" in pointers(), "fields of k-means")
        self.assertEqual(options("/model/init")[1:], ["samples", "kmeans++", "experiment"])
        self.assertFalse([p for p in pointers() if p.startswith(("/loss", "/optimizer"))])
        b.complaints()  # the dry run's own answers

    # ---- Modules by themselves ----

    def module(self, script, *arguments):
        """What an async function of the modules and the arguments returns."""
        self.open("/sweeps")
        return self.browser.driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            const load = (name) => import(`/assets/${name}.js`);
            (async () => { %s })().then(done, (e) => done(`failed: ${e.stack}`));""" % script, *arguments)

    def test_a_stream_that_breaks_goes_on_behind_its_last_event(self):
        path = f"/v1/experiments/{self.encoder['id']}/events"
        whole = self.daemon.call("GET", path).decode()
        ids = [line[4:] for line in whole.split("\n") if line.startswith("id: ")]
        seen, asked = self.module("""
            const { follow } = await load('api');
            const seen = [], asked = [], real = window.fetch;
            window.fetch = async (url, options) => {
              asked.push(options.headers['Last-Event-ID'] ?? null);
              const text = await (await real(url, options)).text();
              const cut = asked.length < 3 ? text.slice(0, Math.floor(text.length * 0.6)) : text;
              return new Response(cut);
            };
            await follow(arguments[0], '', (event) => event.id && seen.push(event.id), new AbortController().signal);
            window.fetch = real;
            return [seen, asked];""", self.encoder["id"])
        self.assertEqual(seen, ids)
        self.assertEqual(asked[0], None)
        self.assertEqual(len(asked), 3)
        self.assertTrue(all(a in ids for a in asked[1:]) and asked[1] != asked[2], asked)

    def test_numbers_and_pointers(self):
        got = self.module("""
            const f = await load('format'), { parseValue, withValue } = await load('form'), { patchOf } = await load('page-new');
            const { durationTicks } = await load('curves'), { makeScale } = await load('page-sweep'), { eventReader } = await load('api');
            const scale = makeScale([0, 1e-4, 1e-2]);
            const events = [], take = eventReader((e) => events.push([e.id, e.type, e.data]));
            for (const piece of ['id: 1\\neve', 'nt: epoch\\ndata: {"a"', ':1}\\n', '\\n: heartbeat\\n\\nevent: log\\ndata: 2\\n\\n']) take(piece);
            return {
              numbers: [0, 1234567, 0.00001, 0.123456, -1.5, null, 1e30].map((x) => f.number(x)),
              shares: [f.percent(0.5), f.percent(null)],
              times: [0.0004, 0.012, 3.14, 59.9, 200, 7300, 200000].map(f.duration),
              ticks: [durationTicks([0, 2e-4, 4e-4]), durationTicks([0, 30, 60]), durationTicks([0, 100, 200])],
              bytes: [12, 2048, 5e6, 3e9].map(f.bytes),
              pointers: [f.atPointer({ 'a/b': [{ c: 1 }] }, '/a~1b/0/c'), f.toPointer(['a/b', 'c~'])],
              pretty: f.pretty({ a: 1e-5, b: [1, 2], c: {} }),
              values: [parseValue('1, 2', { type: 'array', items: { type: 'integer' } }), parseValue(' x ', { type: 'string' }), parseValue('', {}), parseValue('1e-3', { type: 'number' })],
              set: withValue({ a: { b: 1 } }, '/a/c/d', 2),
              patches: [patchOf({ a: 1, b: { c: 1, d: 2 } }, { a: 1, b: { c: 3, d: 2 } }), patchOf({ a: 1 }, { a: null }), patchOf({ a: 1, b: 2 }, { a: 1 })],
              scale: [scale.log, scale.place(0), scale.place(1e-2), scale.text(scale.place(0)), scale.text(-4)],
              events,
            };""")
        self.assertEqual(got, {
            "numbers": ["0", "1\u202f234\u202f567", "1e-5", "0.1235", "-1.5", "–", "1e30"],
            "shares": ["50.0 %", "–"],
            "times": ["0.4 ms", "12 ms", "3.1 s", "1 min", "3 min 20 s", "2 h 2 min", "2 d 8 h"],
            "ticks": [["0 µs", "200 µs", "400 µs"], ["0 s", "30 s", "60 s"], ["0 s", "1 min 40 s", "3 min 20 s"]],
            "bytes": ["12 B", "2.00 KiB", "4.77 MiB", "2.79 GiB"],
            "pointers": [1, "/a~1b/c~0"],
            "pretty": '{\n  "a": 1e-5,\n  "b": [1, 2],\n  "c": {}\n}',
            "values": [[1, 2], "x", None, 0.001],
            "set": {"a": {"b": 1, "c": {"d": 2}}},
            "patches": [{"b": {"c": 3}}, None, {"b": None}],
            "scale": [True, -5, -2, "0", "1e-4"],
            "events": [["1", "epoch", {"a": 1}], [None, "log", 2]]})


class People(unittest.TestCase):
    """A daemon that asks for tokens."""

    def test_signing_in_and_adding_people(self):
        with Daemon() as daemon, Browser() as b:
            daemon.add_admin("anna")
            b.open(daemon.port, "/experiments")
            b.wait_text("Sign in")
            self.look(b, "signin")
            b.complaints()
            b.type(b.one("#token"), "ovrd_wrong")
            b.click("Sign in")
            b.wait_text("not valid", ".fault")
            b.type(b.one("#token"), daemon.token)
            b.click("Sign in")
            b.wait_text("No experiments yet")
            self.assertNotIn(daemon.token, b.driver.current_url)
            self.assertEqual(b.run("return localStorage.getItem('ovrd.token')"), None)
            self.assertEqual([c for c in b.complaints() if "401" not in c], [])
            b.one("a[href='#/admin']").click()
            b.click("Add a user")
            b.type(b.one("dialog input"), EVIL)
            b.click("Add", "dialog")
            b.wait_text("name", "dialog .fault")
            b.type(b.one("dialog input"), "bert")
            b.run("const s = document.querySelector('dialog select'); s.value = 'viewer'; s.dispatchEvent(new Event('change'))")
            b.click("Add", "dialog")
            token = b.one("dialog .secret").text
            b.click("Done", "dialog")
            b.wait_text("bert")
            b.settle()
            b.complaints()
            self.look(b, "people")
            b.click("Audit")
            b.wait_text("anna", ".panel:not([hidden])")
            b.click("Sign out")
            b.type(b.one("#token"), token)
            b.click("Sign in")
            b.wait_text("bert", ".account")
            self.assertEqual([b.all("a[href='#/new']"), b.all("a[href='#/admin']")], [[], []])

    def test_what_admins_members_and_viewers_can_do(self):
        with Daemon() as daemon, Browser() as b:
            daemon.add_admin("anna")
            add = lambda name, role: call(daemon, "POST", "/v1/users", {"name": name, "role": role})["token"]["token"]  # noqa: E731
            tokens = {"anna": daemon.token, "bert": add("bert", "member"), "carl": add("carl", "viewer")}
            theirs = daemon.run({**ENCODER, "name": "annas"})
            path = f"/experiments/{theirs['id']}"

            def sign_in(name, place):
                b.open(daemon.port, "/experiments") if not b.all("h1") else None
                b.run("sessionStorage.clear()")
                b.open(daemon.port, place)
                b.type(b.one("#token"), tokens[name])
                b.click("Sign in")
                b.wait_text(name, ".account")

            actions = lambda: [e.text for e in b.all(".page-head .actions button, .page-head .actions a")]  # noqa: E731
            b.set_width(1280)
            sign_in("carl", path)
            b.wait_text("annas", "h1")
            self.assertEqual(actions(), [])
            b.open(daemon.port, "/datasets")
            b.wait_text("No data sets yet")
            self.assertEqual(b.all("form"), [])

            sign_in("bert", path)
            b.wait_text("annas", "h1")
            self.assertEqual(actions(), ["Run again", "Run with changes", "Replay"])
            b.click("Run again")
            b.wait(lambda: path not in b.driver.current_url, "page of the new one")
            b.wait_text("succeeded", ".page-head")
            self.assertIn("Delete", actions())
            b.wait_text("bert", ".page-head")
            b.click("Replay")
            b.wait_text("replays another")
            b.wait_text("succeeded", ".page-head")
            b.wait_text("bit for bit")

            sign_in("anna", "/admin")
            row = lambda name: b.wait(lambda: [r for r in b.all("tbody tr") if r.text.startswith(name)], f"row of {name}")[0]  # noqa: E731
            press = lambda name, text: b.wait(lambda: [e for e in row(name).find_elements("tag name", "button") if e.text == text][0].click() or True, text)  # noqa: E731
            press("bert", "Edit")
            fields = b.all("dialog input[type=number]")
            b.type(fields[1], "-1")
            b.run("const s = document.querySelector('dialog select'); s.value = 'viewer'")
            b.click("Save", "dialog")
            self.assertTrue(b.run("return document.querySelector('dialog input:invalid') !== null"))
            b.type(fields[1], "3")
            b.type(fields[2], "0.5")
            b.click("Save", "dialog")
            b.wait(lambda: "viewer" in row("bert").text and "of 3" in row("bert").text and "of 512 MiB" in row("bert").text, "bert's new row")
            self.assertEqual(call(daemon, "GET", "/v1/users/bert")["quotas"]["queued"], 3)
            press("bert", "Tokens")
            b.type(b.one("dialog input"), "laptop")
            b.click("Make a token", "dialog")
            token = b.one("dialog .secret").text
            b.wait_text("laptop", "dialog table")
            self.look(b, "tokens")
            b.wait(lambda: [r for r in b.all("dialog tbody tr") if r.text.startswith("laptop")][0].find_element("tag name", "button").click() or True, "Revoke")
            b.wait_text("revoked", "dialog table")
            b.click("Done", "dialog")
            self.assertEqual([t["revoked_at"] is None for t in call(daemon, "GET", "/v1/users/bert/tokens")["tokens"] if t["label"] == "laptop"], [False])
            press("anna", "Edit")
            b.run("const s = document.querySelector('dialog select'); s.value = 'viewer'")
            b.click("Save", "dialog")
            b.wait_text("admin", "dialog .fault")  # the last one stays
            b.click("Cancel", "dialog")
            call(daemon, "POST", "/v1/experiments", {**LONG, "name": "annas-long"})
            b.open(daemon.port, "/queue")
            b.wait_text("Shares")
            b.wait(lambda: "annas-long" in row("annas-long").text and row("anna").text, "anna's share")
            self.look(b, "shares")
            # What was revoked is not let in, and a token that ends while the page is open leads to the door.
            b.run("sessionStorage.setItem('ovrd.token', arguments[0])", token)
            b.wait_text("Sign in", "body")
            b.type(b.one("#token"), tokens["anna"])
            b.click("Sign in")
            b.wait_text("Queue", "h1")

    def look(self, b, name):
        faults = []
        for theme in ("light", "dark"):
            b.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})
            for width in WIDTHS:
                b.set_width(width)
                faults += b.faults()
                b.picture(f"{name}-{width}-{theme}")
        b.set_width(1280)
        self.assertEqual(faults, [])


class Cluster(unittest.TestCase):
    look = People.look

    def test_what_is_on_a_cluster(self):
        """Slurm's programs fail here: what it has and says is written into the database while the daemon is away."""
        on_slurm = {**ENCODER, "name": "far", "training": {"epochs": 2, "executor": "slurm"}, "model": {"kind": "ovr_encoder", "hidden": [2048]}}
        with tempfile.TemporaryDirectory() as programs:
            for name in ("sbatch", "squeue", "scancel"):
                with open(os.path.join(programs, name), "w") as file:
                    file.write("#!/bin/sh\nexit 1\n")
                os.chmod(file.name, 0o755)
            os.environ.update(OVRD_SLURM_DIRECTORY=programs, OVRD_WORKER_URL="http://127.0.0.1:1")
            self.addCleanup(lambda: [os.environ.pop(name) for name in ("OVRD_SLURM_DIRECTORY", "OVRD_WORKER_URL")])
            with Daemon("--slurm", "on", "--slurm-jobs", "2") as daemon, Browser() as b:
                ranks = {**on_slurm, "training": {**on_slurm["training"], "ranks": 4}}
                runs, waits, last = [call(daemon, "POST", "/v1/experiments", spec)["id"] for spec in (ranks, on_slurm, on_slurm)]
                daemon.stop()
                with sqlite3.connect(os.path.join(daemon.directory.name, "data", "ovrd.sqlite3")) as db:
                    db.executescript(f"""
                        DELETE FROM attempt; UPDATE experiment SET sent = 0;
                        INSERT INTO attempt (experiment, number, token_sha256, job_name, job, node, cores, begun_at, submitted_at)
                            SELECT seq, 1, 'a', 'a', '4711', 'h1', 16, 5000, 4000 FROM experiment WHERE id = '{runs}';
                        INSERT INTO attempt (experiment, number, token_sha256, job_name, job, reason, submitted_at)
                            SELECT seq, 1, 'b', 'b', '4712', 'Priority', 4500 FROM experiment WHERE id = '{waits}';
                        UPDATE experiment SET sent = 1, attempts = 1 WHERE id <> '{last}';
                        UPDATE experiment SET state = 'running', started_at = 5000 WHERE id = '{runs}';""")
                db.close()
                daemon.start()
                b.open(daemon.port, "/queue")
                b.wait_text("On the cluster")
                b.wait_text("of at most 2")
                b.wait_text("Slurm · 4 ranks · h1 · job 4711", "tbody")
                b.wait_text("Slurm has it as job 4712 (Priority): others go first there")
                b.wait_text("2nd in line for Slurm")
                self.look(b, "queue-cluster")
                b.open(daemon.port, f"/experiments/{runs}")
                b.wait_text("Slurm · 4 ranks · h1 · job 4711", ".page-head")
                b.open(daemon.port, f"/experiments/{waits}")
                b.wait_text("others go first there", ".live")
                b.open(daemon.port, "/new")
                b.click("Start anew")
                b.type(b.field("/model/hidden"), "4096")
                b.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
                b.type(b.field("/training/ranks"), "8")
                b.wait_text("Slurm · 8 ranks")


if __name__ == "__main__":
    main()
