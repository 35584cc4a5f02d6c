"""The tables and plots of scripts/bench.sh, and that docs/BENCHMARKS.md shows the figures it was written with."""

import json
import unittest
from xml.etree import ElementTree

from scripts.bench.__main__ import BENCHMARKS, FIGURES, PLOTS, REGION, render
from scripts.bench.plots import draw
from scripts.bench.rows import P99, PEAK, Row, Run, compared


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
        region, pictures = render(json.loads(FIGURES.read_text()))
        self.assertEqual(REGION.search(BENCHMARKS.read_text())[0], region)
        for file, text in pictures.items():
            self.assertEqual((PLOTS / file).read_text(), text)
        self.assertEqual({path.name for path in PLOTS.iterdir()}, {FIGURES.name, *pictures})
