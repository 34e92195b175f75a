"""The page's pieces of HTML and CSS; whatever comes from a visitor is escaped."""

from html import escape
from importlib import resources

from lcad.web.progress import Step

_FILES = resources.files("lcad.web")
CSS = _FILES.joinpath("page.css").read_text(encoding="utf-8")
CANVAS = {
    "html_template": _FILES.joinpath("painting.html").read_text(encoding="utf-8"),
    "js_on_load": _FILES.joinpath("painting.js").read_text(encoding="utf-8"),
}
"""Arguments of `gr.HTML` that make it a canvas; see lcad/web/painting.py for what is drawn on it."""
OUTLINES = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324")
"""as `lcad.masks.overlay.OUTLINES`, which takes a second to import; tests/test_web_session.py compares them"""


def status(lines: list[str], problem: bool = False) -> str:
    """Notes, or a problem, as a live region that screen readers speak."""
    if not lines:
        return ""
    kind, role = ("problem", "alert") if problem else ("note", "status")
    shown = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="lcad-{kind}" role="{role}">{shown}</div>'


def progress(step: Step | None) -> str:
    if step is None:
        return ""
    text = escape(step.text)
    return (
        f'<div class="lcad-progress" role="status"><label>{text}<progress max="{step.total}" value="{step.done}">'
        f"{text}</progress></label></div>"
    )


def chips(colors: list[str | None], marked: list[bool]) -> str:
    """The colours of phrases on their chips: the stripe that of the region's outline, the dot the colour asked for.

    Args:
        colors: "#rrggbb" of each phrase, or None.
        marked: has the phrase a region?
    """
    rules = []
    for number, (color, region) in enumerate(zip(colors, marked, strict=True)):
        chip = f"#lcad-phrases label:nth-of-type({number + 1})"
        line = "solid" if region else "dotted"
        rules.append(f"{chip} {{border-left: 6px {line} {OUTLINES[number % len(OUTLINES)]} !important}}")
        if color:
            rules.append(f"{chip}::after {{content: ''; background: {color}}}")
    return f"<style>{' '.join(rules)}</style>"


def report(rows: list[dict]) -> str:
    """What was asked and what was obtained, a row for each object."""
    if not rows:
        return ""
    head = "<tr><th>Object</th><th>Asked</th><th>Obtained</th><th></th></tr>"
    return f'<table class="lcad-report"><thead>{head}</thead><tbody>{"".join(map(_row, rows))}</tbody></table>'


def _row(row: dict) -> str:
    asked = escape(row["asked"] or "any")
    verdict = {True: "&#10003; as asked", False: "differs", None: ""}[row["adherent"]]
    if "color" in row:
        asked = _swatch(row["color"]) + escape(row["color"])
        close = row["delta_e"] <= 5
        verdict = f"&#10003; &Delta;E {row['delta_e']:.1f}" if close else f"&Delta;E {row['delta_e']:.1f}"
        if row["limited_by_luminance"]:
            verdict += ": as near as its brightness allows"
    obtained = _swatch(row["obtained_hex"]) + escape(row["name"])
    return f"<tr><td>{escape(row['phrase'])}</td><td>{asked}</td><td>{obtained}</td><td>{verdict}</td></tr>"


def _swatch(color: str) -> str:
    return f'<span class="lcad-swatch" style="background:{escape(color)}"></span>'
