"""Tables 1 and 3 of the paper, with measured numbers beside the paper's: Markdown, CSV and LaTeX."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

PAPER = json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))
"""table1, table2, table3: the paper's numbers, each with its data set, method and measure"""

COLUMNS = {
    1: ("psnr", "ssim", "lpips", "adherence"),
    3: ("fid", "psnr", "ssim", "lpips", "colorfulness", "colorfulness_difference"),
}
FITS = {1: "squash", 3: "crop"}
"""how photos become square; Sec. 4.4 crops to the centre, of the photos of Table 1 the paper does not say"""
DIGITS = {"psnr": 2, "ssim": 4, "lpips": 3, "adherence": 3, "fid": 2}  # others: 1
_LATEX = {"_": r"\_", "%": r"\%", "&": r"\&", "^": r"\^{}", "#": r"\#"}

Interval = tuple[float, float, float]
"""mean, and the ends of its 95 % interval"""


@dataclass(frozen=True)
class Cell:
    """One method's value of one measure, with the paper's if it has one."""

    method: str
    measure: str
    measured: float
    low: float
    high: float
    paper: float | None

    @property
    def difference(self) -> float | None:
        """Measured less the paper's."""
        return None if self.paper is None else self.measured - self.paper

    def text(self, value: float | None, sign: str = "") -> str:
        """A number with the digits this measure is usually given with."""
        return "" if value is None else f"{value:{sign}.{DIGITS.get(_family(self.measure), 1)}f}"


def dataset_of(number: int, dataset: str | None = None) -> str:
    """The data set whose numbers a table is compared with: by default the first that the paper has in it.

    Raises:
        ValueError: the table has no such data set.
    """
    known = list(dict.fromkeys(row["dataset"] for row in PAPER[f"table{number}"]))
    if dataset is None:
        return known[0]
    if dataset not in known:
        raise ValueError(f"table {number}: unknown data set {dataset!r}; allowed: {', '.join(known)}")
    return dataset


def make_table(number: int, summaries: dict[str, dict[str, Interval]], dataset: str | None = None) -> list[Cell]:
    """The cells of a table, method by method.

    Args:
        number: 1 or 3, the paper's table.
        summaries: method, as the paper writes it (a star for scarce captions; others are free) -> its measures.
        dataset: as the paper names it; its numbers are what is compared with, see `dataset_of`.

    Raises:
        ValueError: the table has no such data set.
    """
    dataset = dataset_of(number, dataset)
    printed = {(r["method"], r["measure"]): r["value"] for r in PAPER[f"table{number}"] if r["dataset"] == dataset}
    return [
        Cell(method, measure, *interval, printed.get((method, _family(measure))))
        for method, summary in summaries.items()
        for column in COLUMNS[number]
        for measure, interval in summary.items()
        if _family(measure) == column
    ]


def summary_csv(summaries: dict[str, dict[str, Interval]], variants: dict[str, str]) -> str:
    """All measures of all methods, one a line, with the variant each is computed in."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "measure", "mean", "low", "high", "variant"])
    for method, summary in summaries.items():
        writer.writerows([method, name, *interval, variants.get(name, "")] for name, interval in summary.items())
    return text.getvalue()


def summary_text(summaries: dict[str, dict[str, Interval]], variants: dict[str, str]) -> str:
    """The same to look at: a block a method, means with their 95 % intervals, then what each measure is."""
    lines = []
    for method, summary in summaries.items():
        lines.append(method)
        lines += [f"  {name:24} {m:8.4g}  [{low:.4g}, {high:.4g}]" for name, (m, low, high) in summary.items()]
    return "\n".join([*lines, *(f"{name}: {variant}" for name, variant in variants.items())])


def to_csv(table: list[Cell], fit: str) -> str:
    """One line for each method and measure; `fit`: how photos became square."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*asdict(table[0]), "difference", "fit"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) | {"difference": cell.difference, "fit": fit} for cell in table)
    return text.getvalue()


def to_markdown(table: list[Cell], note: str = "") -> str:
    """Methods down, measures across: measured [interval], then the paper's number and the difference to it.

    Args:
        note: how it was measured, a line above the table.
    """

    def write(cell: Cell) -> str:
        own = f"{cell.text(cell.measured)} [{cell.text(cell.low)}, {cell.text(cell.high)}]"
        return own if cell.paper is None else f"{own}; {cell.text(cell.paper)} ({cell.text(cell.difference, '+')})"

    head, *rows = _grid(table, write)
    lines = [head, ["---"] * len(head), *rows]
    return (f"{note}\n\n" if note else "") + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(table: list[Cell], note: str = "") -> str:
    """A tabular for booktabs, with the paper's numbers in brackets; the note is a comment above it."""
    grid = _grid(table, lambda c: c.text(c.measured) + ("" if c.paper is None else f" ({c.text(c.paper)})"))
    head, *body = (
        " & ".join("".join(_LATEX.get(letter, letter) for letter in text) for text in line) + r" \\" for line in grid
    )
    opening = [f"% {note}"] if note else []
    opening += [rf"\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*opening, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _family(measure: str) -> str:
    return "lpips" if measure.startswith("lpips_") else measure


def _grid(table: list[Cell], write: Callable[[Cell], str]) -> list[list[str]]:
    measures = list(dict.fromkeys(cell.measure for cell in table))
    lines = [["method", *measures]]
    for method in dict.fromkeys(cell.method for cell in table):
        written = {cell.measure: write(cell) for cell in table if cell.method == method}
        lines.append([method, *(written.get(measure, "") for measure in measures)])
    return lines
