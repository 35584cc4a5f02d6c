"""Measures sagemaker-tfs against nginx on this machine; run it through scripts/bench.sh, which builds first.

nginx, sagemaker-tfs and sagemaker-tfs with Python handlers take turns in front of the same kind of backend, the fake
model server with a fixed answer. Every ratio is taken within a round, and the table shows the median of the rounds:
on a shared machine speeds drift from minute to minute, ratios much less.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from tests.harness.client import Failure
from tests.harness.constants import ROOT
from tests.harness.processes import interrupt_on_signals

from . import container, parts
from .plots import plots
from .rows import Row, table
from .targets import TARGET, Bench, say

BENCHMARKS = ROOT / "docs" / "BENCHMARKS.md"
PLOTS = ROOT / "docs" / "plots"
FIGURES = PLOTS / "figures.json"


@dataclass(frozen=True)
class Mode:
    rounds: int
    seconds: int
    # Parts with the same function are one measurement, in which the chosen ones take turns.
    parts: dict[str, Callable]
    table: Callable[[list[Row]], str] = partial(table, ("nginx", "sagemaker-tfs"))


COMPARISON = {
    "nginx": parts.against_nginx,
    "handlers": parts.handlers,
    "conversion": parts.conversion,
    "bodies": parts.large_bodies,
    "starts": parts.starts,
}
WORKERS = {**dict.fromkeys(parts.SHAPES, parts.waiting), "many": parts.many, "ping": parts.ping}
MODES = {
    "comparison": Mode(9, 4, COMPARISON),
    "attack": Mode(3, 25, {"attack": parts.attack}, partial(table, ("alone", "attacked"))),
    "workers": Mode(5, 3, WORKERS),
    "container": Mode(5, 4, {"container": container.against_container}, container.table),
}


def main() -> int:
    bench, mode = _options()
    if bench.plot:
        write(json.loads(FIGURES.read_text()))
        return 0
    interrupt_on_signals()
    # --attack and --workers hold thousands of connections.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        os.environ["TMPDIR"] = scratch  # nginx keeps large bodies in files there
        bench.scratch = Path(scratch)
        for measure in dict.fromkeys(mode.parts[part] for part in bench.parts):
            with contextlib.ExitStack() as bench.running:
                rows += measure(bench)
    figures = {"rows": [asdict(row) for row in rows], "run": _how(bench)}
    shown = f"{mode.table(rows)}\n\n{figures['run']}"
    print(shown)
    if bench.write and bench.mode == "comparison":
        write(figures)
    elif bench.write:
        replace(ROOT / "README.md" if bench.container else BENCHMARKS, region(bench.mode), f"{shown}\n")
    missed = [row for row in rows if not row.meets_floor()]
    for row in missed:
        say("BELOW THE FLOOR: " + ", ".join(row.cells()))
    return 1 if missed and not bench.quick else 0


def region(mode: str) -> re.Pattern:
    """Where the table of a mode stands in its document."""
    return re.compile(rf"(?<=<!-- {mode}:start -->\n).*?(?=<!-- {mode}:end -->)", re.DOTALL)


def render(figures: dict) -> tuple[str, dict[str, str]]:
    """What docs/BENCHMARKS.md shows of these figures, and the plots by the names of their files."""
    rows = [Row(**row) for row in figures["rows"]]
    pictures = plots(rows)
    titles = {file: re.search("<title>(.*)</title>", picture)[1] for file, picture in pictures.items()}
    images = "\n\n".join(f"![{title}](plots/{file})" for file, title in titles.items())
    return f"{images}\n\n{MODES['comparison'].table(rows)}\n\n{figures['run']}\n", pictures


def write(figures: dict) -> None:
    text, pictures = render(figures)
    replace(BENCHMARKS, region("comparison"), text)
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    for file, picture in pictures.items():
        (PLOTS / file).write_text(picture)
    say(f"wrote {PLOTS}")


def replace(document: Path, place: re.Pattern, new: str) -> None:
    text, count = place.subn(lambda _: new, document.read_text())
    if not count:
        raise Failure(f"{document} does not have the lines of {place.pattern}")
    document.write_text(text)
    say(f"wrote {document}")


def _how(bench: Bench) -> str:
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.rpartition("/")[2].strip()
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = f" ({model[1]})" if model else ""
    command = " ".join(["./scripts/bench.sh", *(argument for argument in sys.argv[1:] if argument != "--write")])
    rounds = " (a third of them for 1 and 2 workers)" if bench.mode == "comparison" else ""
    packages = ", ".join(filter(find_spec, ("gevent", "grpc"))) or "neither gevent nor grpc"
    more = f"Ratios also show the smallest and the largest. Python has {packages}."
    if bench.container:
        command, more = command.replace(str(bench.container), "CHECKOUT"), container.how(bench.container)
    return (
        f"Machine: {os.cpu_count()} cores{cpu}, Linux {platform.release()}, nginx {nginx}, Python "
        f"{platform.python_version()}. Command: `{command}`, {bench.rounds} rounds{rounds} of {bench.seconds} s a run. "
        f"Figures are medians. {more}"
    )


def _options() -> tuple[Bench, Mode]:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__.split("\n\n")[0])
    modes = parser.add_mutually_exclusive_group()
    mode = {"dest": "mode", "action": "store_const", "default": "comparison"}
    modes.add_argument("--attack", const="attack", **mode, help="instead: what hostile connections cost others")
    modes.add_argument("--workers", const="workers", **mode, help="instead: requests that wait, in several ways")
    modes.add_argument("--container", type=Path, metavar="CHECKOUT", help="instead: Amazon's Python container")
    modes.add_argument("--plot", action="store_true", help="measure nothing: draw again what --write wrote")
    parser.add_argument("--write", action="store_true", help="write the table into the document, and plots of it")
    parser.add_argument("--quick", action="store_true", help="1 round of 1 s: an impression, not judged")
    parser.add_argument("--rounds", type=int, help="how often the servers take turns")
    parser.add_argument("--seconds", type=int, help="of each run; under --attack more than 20, when heads are given up")
    names = "; ".join(" ".join(one.parts) for one in MODES.values())
    parser.add_argument("--parts", nargs="+", metavar="PART", help=f"default: all, by mode: {names}")
    parser.add_argument("--server", type=Path, default=TARGET / "sagemaker-tfs", help="another executable")
    bench = parser.parse_args(namespace=Bench())
    bench.mode = "container" if bench.container else bench.mode
    chosen = MODES[bench.mode]
    if bench.write and bench.parts:
        parser.error("--write writes a whole table, without --parts")
    if unknown := set(bench.parts or ()) - set(chosen.parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))} here; the parts are {', '.join(chosen.parts)}")
    bench.parts = bench.parts or list(chosen.parts)
    bench.rounds = bench.rounds or (1 if bench.quick else chosen.rounds)
    bench.seconds = bench.seconds or (1 if bench.quick else chosen.seconds)
    return bench, chosen


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as problem:
        say(f"FAILED: {problem}")
        sys.exit(1)
