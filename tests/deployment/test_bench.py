"""The tables and plots of scripts/bench.sh, and that docs/BENCHMARKS.md shows the figures it was written with."""

import json
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from scripts.bench.__main__ import BENCHMARKS, FIGURES, PLOTS, region, render
from scripts.bench.container import FOLDERS, copy_sources, table
from scripts.bench.plots import draw
from scripts.bench.rows import P99, PEAK, Row, Run, compared
from tests.harness.client import Failure


def run_of(p99, peak):
    return Run(10, 1.0, 0.5, p99, size=100, peak=peak, cpu=0.1, switches=5)


class Rows(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        nginx, ours = [run_of(1.0, 0), run_of(4.0, 0), run_of(2.0, 0)], [run_of(2.0, 0), run_of(4.0, 0), run_of(3.0, 0)]
        row = compared("p99", P99, nginx, ours, at_most=(1.4, 1))
        self.assertEqual(row.cells(), ["p99", "2 ms", "3 ms", "1.50x (1.00 to 2.00)", "at most 1.4x", "at most 1x"])
        self.assertFalse(row.meets_floor())
        self.assertTrue(compared("p99", P99, nginx, ours, at_least=(1.5,)).meets_floor())

    def test_a_peak_is_the_highest_and_is_not_compared(self):
        row = compared("peak", PEAK, [run_of(1, 2e6), run_of(1, 1e6)], [run_of(1, 5e6), run_of(1, 1234e6)])
        self.assertEqual(row.cells(), ["peak", "2 MB", "1,234 MB", "–", "–", "–"])

    def test_limits_without_a_ratio_are_those_of_the_figure(self):
        row = Row("memory", 2.5, "x body", at_most=(2, "constant"), more="more")
        self.assertEqual(row.cells(), ["memory", "–", "2.5x body, more", "–", "at most 2x body", "constant"])
        self.assertFalse(row.meets_floor())


class Plots(unittest.TestCase):
    def test_a_plot_has_every_label_and_bars_to_scale(self):
        speed, size = {"few": {"ours": 200, "nginx": 100}}, {"one": {"ours": 0.5}}
        picture = draw("What?", {"speed & <more>": ("ms", speed), "size": ("MB", size)})
        root = ElementTree.fromstring(picture)
        tag = "{http://www.w3.org/2000/svg}"
        texts = "|".join(element.text for element in root.iter(f"{tag}text"))
        self.assertEqual(texts, "What?|speed & <more>|few|ours|200 ms|nginx|100 ms|size|one|ours|0.5 MB")
        bars = [float(bar.get("width")) for bar in root.iter(f"{tag}rect") if bar.get("class") != "page"]
        self.assertEqual(bars, [bars[0], bars[0] / 2, bars[0]])

    def test_the_document_shows_its_figures(self):
        text, pictures = render(json.loads(FIGURES.read_text()))
        self.assertEqual(region("comparison").search(BENCHMARKS.read_text())[0], text)
        for file, picture in pictures.items():
            self.assertEqual((PLOTS / file).read_text(), picture)
        self.assertEqual({path.name for path in PLOTS.iterdir()}, {FIGURES.name, *pictures})


class PythonContainer(unittest.TestCase):
    def copied(self, folder, files):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        home, sources = Path(scratch.name, "home"), Path(scratch.name, "checkout", folder)
        sources.mkdir(parents=True)
        home.mkdir()
        for name, text in files.items():
            (sources / name).write_text(text)
        copy_sources(Path(scratch.name, "checkout"), home)
        return {path.name: path.read_text().replace(str(home), "HOME") for path in (home / "sagemaker").iterdir()}

    def test_absolute_paths_are_below_the_new_home(self):
        script = 'run("x /sagemaker/a.cfg unix:/tmp/a.sock --chdir /sagemaker", "/opt/ml/{}/code", "/opt/ml/model")\n'
        others = "http://x.y/tmp ./tmp /tmpfs /usr/sbin/nginx sagemaker /tfs/v1\n"
        for folder in FOLDERS:
            copy = self.copied(folder, {"serve.py": script + others})
            expected = script.replace("/sagemaker", "HOME/sagemaker").replace("/tmp/", "HOME/tmp/")
            self.assertEqual(copy, {"serve.py": expected.replace("/opt/ml", "HOME/opt/ml") + others})

    def test_nginx_listens_on_loopback_and_writes_below_the_new_home(self):
        template = "load_module /lib/m/js.so;\npid /tmp/p;\nhttp {\n  server {\n    listen %PORT% deferred;\n  }\n}\n"
        config = self.copied(FOLDERS[0], {"serve.py": "", "nginx.conf.template": template})["nginx.conf.template"]
        first, rest = config.split("user root;\nhttp {\n")
        self.assertEqual(first, "load_module modules/js.so;\npid HOME/tmp/p;\n")
        temporary, rest = rest.split("  server {\n")
        self.assertEqual(temporary.count("_temp_path HOME/tmp/"), 5)
        self.assertEqual(rest, "    listen 127.0.0.1:%PORT% deferred;\n  }\n}\n")

    def test_a_checkout_without_the_files_is_refused(self):
        with self.assertRaisesRegex(Failure, "neither .*/serve.py nor .*/serve.py"):
            self.copied("elsewhere", {"serve.py": ""})

    def test_the_table_shows_three_digits_and_one_ratio_for_each_pair(self):
        rows = [
            Row("speed", 26472.0, "requests/s", 2857.5, ratios=(9.0, 9.3, 8.0)),
            Row("memory", (2.0638, 27.71), "MB", (36.29, 89.8)),
            Row("failed requests", (0,), "", (87,)),
        ]
        self.assertEqual(
            table(rows),
            "|  | Python container | `sagemaker-tfs` | ratio |\n"
            "| --- | --- | --- | --- |\n"
            "| speed | 2,860 requests/s | 26,500 requests/s | 9x |\n"
            "| memory | 36.3 / 89.8 MB | 2.06 / 27.7 MB | 0.057x / 0.31x |\n"
            "| failed requests | 87 | 0 | – |",
        )
