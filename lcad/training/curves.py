"""The CSV logs of a run that may have been stopped and resumed: one file for each start, `logs/version_<n>`."""

import csv
from pathlib import Path


def read_curve(run: Path, name: str) -> tuple[list[int], list[float]]:
    """The steps and values of one measure; where starts overlap, the later one counts.

    Raises:
        FileNotFoundError: no logs there. ValueError: no such measure in them.
    """
    curve: dict[int, float] = {}
    known: set[str] = set()
    for path in _logs(run):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("step")]
        known |= {key for row in rows for key in row}
        own = {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
        begins = min(own, default=None)
        curve = {step: value for step, value in curve.items() if begins is None or step < begins} | own
    if not curve:
        there = ", ".join(sorted(known - {"step", "epoch"}))
        raise ValueError(f"{run}: no measure {name!r} is logged; there are {there}")
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]


def resumed_steps(run: Path) -> list[int]:
    """The first logged step of every start but the first."""
    steps = []
    for path in _logs(run)[1:]:
        with path.open(newline="", encoding="utf-8") as file:
            steps += [int(row["step"]) for row in csv.DictReader(file) if row.get("step")][:1]
    return steps


def smooth(values: list[float], window: int = 20) -> list[float]:
    """The mean over the last `window` values, or as many as there are."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]


def _logs(run: Path) -> list[Path]:
    found = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    if not found:
        raise FileNotFoundError(f"{run}: no logs/version_*/metrics.csv; give a run folder with CSV logs")
    return found
