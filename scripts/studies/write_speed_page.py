#!/usr/bin/env python3
"""Write docs/speed.md from what has been measured: steps.csv and benchmarks/*.json.

python scripts/studies/write_speed_page.py --docs docs/

steps.csv and steps.png are of measure_steps.py, benchmarks/<machine>.json of scripts/benchmark.py --json, and
benchmarks/<machine>.md is results.md of device_check.py.
"""

import csv
import json
from pathlib import Path

from lcad.cli.common import build_parser, reporting

HEAD = """# Speed

Made by `scripts/studies/write_speed_page.py` from what was measured.

## How few steps do

The bundled model with schedulers of diffusers and both ways to space their time steps, on every tenth of 145 photos
of COCO val2017 with their captions, masks found from these. *Leading* time steps (981, 961, ...; the paper's and the
release's) begin below the most noise; *trailing* ones (999, 899, ...) at it, which is what sampling starts from (Lin
et al. 2024). One call is one UNet forward at batch 2, with guidance. *Obeyed* and *spill* are those of `lcad steer`:
four colours for the main object of each of 20 photos. LPIPS is older than they are: its masks were found by the caption
as it is, which today's two wordings ([masks.md](masks.md#how-a-phrase-gets-its-region)) replaced; guidance was 2.5.
With today's masks and guidance 2.25, which 4 and 50 steps were judged by, the first 64 photos have 0.1958 with 50
leading steps of DDIM and 0.1904 with 4 trailing ones. All is without the second pass, which the model has since got.

![LPIPS against calls of the UNet](steps.png)

"""

FAST = """
**Ten trailing steps of DDIM equal fifty leading ones** and are what models made here are sampled with, but for the
bundled one, which takes four ([why](../checkpoints/mini/README.md#steps-and-guidance)). `--fast` takes
four steps with the guidance baked in, half a call each ([how it is trained](mini.md#four-steps)).

"""

MACHINES = """## Machines

`scripts/benchmark.py` on each: medians of what is run in turn in one process. Ratios are to the bare UNet at batch 2,
of training to its forward + backward, of photos to as many bare forwards as they have steps; *bare forwards* is what
one photo costs in forwards at batch 2, all included.

"""


def steps_table(rows: list[dict]) -> str:
    yardstick = next(row for row in rows if (row["scheduler"], row["steps"]) == ("ddim", "50"))
    best = float(yardstick["lpips"])
    titles = ("scheduler", "time steps", "steps", "calls", "LPIPS alex", "against 50 steps", "obeyed", "spill")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        known = {name: float(row[name]) for name in ("calls", "lpips", "obeyed", "spill") if row.get(name)}
        cells = [row["scheduler"], row["spacing"], row["steps"]]
        cells.append(f"{known['calls']:.1f}" if "calls" in known else "")
        cells += (
            [f"{known['lpips']:.4f}", f"{100 * (known['lpips'] / best - 1):+.1f} %"] if "lpips" in known else ["", ""]
        )
        cells.append(f"{100 * known['obeyed']:.0f} %" if "obeyed" in known else "")
        cells.append(f"{known['spill']:.1f}" if "spill" in known else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def machine_table(path: Path) -> str:
    """What benchmark.py measured on one machine."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"### {path.stem}: {found['machine']}, {found['dtype']}, torch {found['torch']}", ""]
    lines += ["| | seconds | ratio | a second | bare forwards |", "|---|---|---|---|---|"]
    for name, row in found["results"].items():
        more = [f"{row[key]:.2f}" if key in row else "" for key in ("per_second", "forwards")]
        lines.append(f"| {name} | {row['seconds']:.4f} | {row['ratio']:.2f} | {' | '.join(more)} |")
    memory = ", ".join(f"{part} {peak / 2**30:.2f}" for part, peak in found["peak_memory"].items())
    return "\n".join([*lines, "", f"Photos with {found['photo_steps']} steps. Peak memory in GiB: {memory}."]) + "\n"


def run(docs: Path) -> int:
    with (docs / "steps.csv").open(encoding="utf-8") as file:
        parts = [HEAD, steps_table(list(csv.DictReader(file))), FAST, MACHINES]
    parts += [machine_table(path) for path in sorted((docs / "benchmarks").glob("*.json"))]
    parts += [path.read_text(encoding="utf-8") for path in sorted((docs / "benchmarks").glob("*.md"))]
    (docs / "speed.md").write_text("".join(parts), encoding="utf-8")
    print(f"wrote {docs / 'speed.md'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("write_speed_page", __doc__)
    parser.add_argument("--docs", type=Path, required=True, help="folder with steps.csv and benchmarks/")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args.docs))


if __name__ == "__main__":
    raise SystemExit(main())
