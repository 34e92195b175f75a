"""The votes of a user study: vote files and keys of `lcad.evaluation.user_study` -> the shares of Table 2."""

from collections import Counter
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from lcad.evaluation.tables import PAPER
from lcad.evaluation.user_study import Key, read_json, read_key

CONFIDENCE = 0.95
VOTE_FIELDS = {"study": "str", "volunteer": "str", "saved": "str", "votes": "dict"}


def tally(keys: list[Path], votes: list[Path]) -> tuple[list[dict], list[str]]:
    """Count vote files -> rows for `markdown` and a CSV, and one line for each file that was not counted.

    A row holds experiment, dataset, method, votes, total, and in percent: share, low and high (Wilson's interval at
    `CONFIDENCE`, every vote taken as independent), and the paper's share on each of its data sets, "" if it has none.

    Args:
        votes: files, or folders of `votes_*.json`. Of a volunteer's files on one study the one saved last counts.

    Raises:
        ValueError: a file that is malformed, incomplete or of another study; a study without votes.
    """
    from scipy.stats import binomtest

    studies = {key.study: (path, key) for path, key in ((path, read_key(path)) for path in keys)}
    records, warnings = _latest_votes(votes, {study: key for study, (_, key) in studies.items()})
    published = PAPER["table2"]
    rows = []
    for study, (path, key) in studies.items():
        ballots = [record["votes"] for record in records if record["study"] == study]
        if not ballots:
            raise ValueError(f"{path}: no votes for this study in {', '.join(map(str, votes))}")
        counts = Counter(key.samples[sample]["images"][image] for b in ballots for sample, image in b.items())
        for method in key.methods:
            test = binomtest(counts[method], counts.total())
            interval = test.proportion_ci(CONFIDENCE, method="wilson")
            row: dict[str, Any] = {"experiment": key.experiment, "dataset": key.dataset, "method": method}
            row |= {"votes": counts[method], "total": counts.total()}
            percent = {"share": test.statistic, "low": interval.low, "high": interval.high}
            row |= {name: round(100 * float(value), 2) for name, value in percent.items()}
            row |= {f"paper: {line['dataset']}": "" for line in published}
            for line in published:
                if (line["experiment"], line["method"].casefold()) == (key.experiment, method.casefold()):
                    row[f"paper: {line['dataset']}"] = line["value"]
            rows.append(row)
    return rows, warnings


def markdown(rows: list[dict]) -> str:
    """One table for each experiment and data set."""
    papers = [name for name in rows[0] if name.startswith("paper: ")]
    titles = ["Method", "Votes", "Share", f"{100 * CONFIDENCE:.0f} % interval", *map(str.capitalize, papers)]
    tables = []
    for (experiment, dataset), group in groupby(rows, itemgetter("experiment", "dataset")):
        lines = [f"## {experiment.capitalize()} experiment, {dataset}", ""]
        lines += [_line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
        for row in group:
            interval = f"{row['low']:.2f} to {row['high']:.2f} %"
            published = [f"{row[name]:.2f} %" if row[name] != "" else "" for name in papers]
            counted = [f"{row['votes']} of {row['total']}", f"{row['share']:.2f} %", interval]
            lines.append(_line([row["method"], *counted, *published]))
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _latest_votes(sources: list[Path], keys: dict[str, Key]) -> tuple[list[dict], list[str]]:
    latest: dict[tuple[str, str], tuple[Path, dict]] = {}
    warnings = []
    for path in (p for s in sources for p in (sorted(s.glob("votes_*.json")) if s.is_dir() else [s])):
        record = _read_votes(path, keys)
        who = (record["study"], record["volunteer"])
        old, new = sorted([latest.get(who, (path, record)), (path, record)], key=lambda pair: pair[1]["saved"])
        if who in latest:
            warnings.append(f"{old[0]}: not counted; {new[0]} is by the same volunteer, {record['volunteer']}")
        latest[who] = new
    return [record for _, record in latest.values()], warnings


def _read_votes(path: Path, keys: dict[str, Key]) -> dict:
    record = read_json(path)
    got = {name: type(value).__name__ for name, value in record.items()} if isinstance(record, dict) else record
    if got != VOTE_FIELDS:
        raise ValueError(f"{path}: got {str(got)[:200]}, expected {VOTE_FIELDS} as the page saves it")
    if record["study"] not in keys:
        raise ValueError(f"{path}: votes for study {record['study']!r}, expected {', '.join(keys)}; add its --key")
    samples, votes = keys[record["study"]].samples, record["votes"]
    if votes.keys() != samples.keys():
        known = len(votes.keys() & samples.keys())
        raise ValueError(
            f"{path}: got votes on {known} of {len(samples)} samples and {len(votes) - known} unknown ones"
        )
    for sample, image in votes.items():
        if not isinstance(image, str) or image not in samples[sample]["images"]:
            raise ValueError(f"{path}: sample {sample}: got a vote for {image!r}, expected an image of that sample")
    return record
