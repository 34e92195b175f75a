"""What happens on the page, by names of its components: a session and the values given -> new values by name.

Every function takes the visitor's session first. Generators give values as they come. A visitor's mistake is raised as
ValueError or OSError and shown in one line by the page.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lcad.defaults import PLAIN_LOOK
from lcad.web import markup
from lcad.web.progress import Cancelled, Step

if TYPE_CHECKING:  # the page is to be up before torch is imported
    from lcad.web.session import PhotoSession

TILE = 512  # pixels, long side of the candidates side by side
DIVIDER_PIXELS = 50_000_000  # before and after are shown at full size up to here, which a browser can hold
SETTLED = 0.4  # seconds without another change of the look, after which it is worked out at full size
Values = dict[str, object]
NO_FILES: Values = {"files": {"value": None, "visible": False}}
EMPTY: Values = {"gallery": [], "divider": None, "report": "", "made": False, "finished": False} | NO_FILES


def open_photo(session: "PhotoSession", path: str, caption: str | None = None) -> Iterator[Values]:
    """Take a photo; where it was chosen is ready at once for another, or for the same again."""
    yield {"file": None, "examples": {"selected_index": None}, "status": markup.status(["reading the photo"])}
    notes = session.open(Path(path))
    height, width = session.luminance.shape[-2:]
    about = f"{session.name}: {width} x {height} pixels, {session.need_photo().depth} bit"
    session.notes = [about, *notes]
    yield EMPTY | PLAIN_LOOK | {"regions": False, "status": markup.status(session.notes)}
    yield _read(session, caption or "")


def read_caption(session: "PhotoSession", caption: str) -> Values:
    """Find the phrases of a caption and their regions, if it is another one than before."""
    if session.photo is None or (caption or "").strip() == session.caption:
        return {}
    return _read(session, caption)


def _read(session: "PhotoSession", caption: str) -> Values:
    notes = session.read_caption(caption)
    phrases = session.masks.phrases
    choices = [(phrase.text, number) for number, phrase in enumerate(phrases)]
    radio = {"choices": choices, "value": 0 if phrases else None}
    shown = markup.status([*session.notes, *notes])
    return EMPTY | {"phrases": radio, "status": shown} | _regions(session)


def click(session: "PhotoSession", number: int | None, place: tuple[int, int]) -> Iterator[Values]:
    """Give a phrase the region at a pixel (x, y) of the picture with the regions."""
    width, height = session.overlay_size
    session.masks.click(number, (place[0] / width, place[1] / height))
    yield from _changed_regions(session)


def step_region(session: "PhotoSession", number: int | None, by: int) -> Iterator[Values]:
    session.masks.step(number, by)
    yield from _changed_regions(session)


def clear_region(session: "PhotoSession", number: int | None) -> Iterator[Values]:
    session.masks.clear(number)
    yield from _changed_regions(session)


def paint(session: "PhotoSession", number: int | None, drawing: str | None, erase: bool) -> Iterator[Values]:
    """Add what is drawn on the canvas to a phrase's region, or take it away."""
    from lcad.web.painting import painted

    session.masks.check(number)
    session.masks.paint(number, painted(drawing, (session.small.height, session.small.width)), erase)
    yield from _changed_regions(session)


def set_color(session: "PhotoSession", number: int | None, color: str) -> Iterator[Values]:
    """Ask for an exact colour of a phrase's region."""
    if not (color or "").strip():
        raise ValueError("there is no colour yet; pick one, or write #8b1a1a or a name such as navy")
    session.set_color(number, color)
    yield {"picker": _asked(session, session.masks.check(number))}
    yield from _changed_colors(session)


def any_color(session: "PhotoSession", number: int | None) -> Iterator[Values]:
    """Take the exact colour of a phrase's region back."""
    session.set_color(number, None)
    yield from _changed_colors(session)


def colorize(
    session: "PhotoSession", caption: str, number: float, seed: float, steps: float, guidance: float
) -> Iterator[Values]:
    """Make candidates; each is shown when it is done, and the first is kept until another is chosen.

    Args:
        steps, guidance: 0: the model's own.
    """
    yield NO_FILES | {"progress": markup.progress(Step(0, 1, "Waiting for the model"))}
    values = read_caption(session, caption)
    tiles: list = []
    if values:
        yield values
    try:
        for item in session.colorize(int(number), int(seed), int(steps) or None, float(guidance) or None):
            if isinstance(item, Step):
                shown = (
                    {}
                    if item.picture is None
                    else {"made": True, "gallery": gallery([*tiles, (item.picture, "on its way")])}
                )
                yield {"progress": markup.progress(item)} | shown
                continue
            k = len(tiles)
            tiles.append((session.thumbnail(k, TILE), title(session, k)))
            yield {"made": True, "gallery": gallery(tiles, session.chosen)} | (preview(session) if k == 0 else {})
    except Cancelled:
        yield {"status": markup.status(["stopped; what was done until then is kept"]), "gallery": gallery(tiles)}
    yield {"progress": ""}
    if session.candidates:
        yield from result(session)


def stop(session: "PhotoSession") -> Values:
    session.stop()
    return {}


def keep(session: "PhotoSession", number: int) -> Iterator[Values]:
    """Choose a candidate."""
    if number == session.chosen or number >= len(session.candidates):  # the last may be one on its way
        return
    session.keep(number)
    yield preview(session) | NO_FILES
    yield from result(session)


def change_look(session: "PhotoSession", saturation: float, warmth: float) -> Iterator[Values]:
    """Show other saturation and warmth: at once small, and at full size when nothing changes any more."""
    look = session.look
    if (look.saturation, look.warmth) == (saturation, warmth):
        return
    session.set_look(saturation, warmth)
    if not session.candidates:
        return
    yield preview(session) | NO_FILES
    time.sleep(SETTLED)
    if (look.saturation, look.warmth) == (saturation, warmth):
        yield from result(session)


def preview(session: "PhotoSession") -> Values:
    """Before and after, small."""
    from lcad.web.studio import SIDE

    return {"finished": True, "divider": (session.small.convert("L"), session.thumbnail(session.chosen, SIDE))}


def result(session: "PhotoSession") -> Iterator[Values]:
    """Before and after at full size, and the table of what was asked and obtained."""
    yield {"report": markup.report(_with_hex(session.report()))}
    yield {"divider": tuple(map(str, session.pictures(DIVIDER_PIXELS)))}


def write(session: "PhotoSession", suffix: str) -> Values:
    """Write the kept candidate and its record for download."""
    paths = session.write(suffix)
    lines = [f"{paths[0].name} is ready", *session.notes]
    files = {"value": [str(path) for path in paths], "visible": True}
    return {"files": files, "status": markup.status(lines)}


def gallery(tiles: list, chosen: int | None = None) -> dict:
    return {"value": tiles, "selected_index": chosen}


def title(session: "PhotoSession", number: int) -> str:
    """A candidate's number, and how many colours came as asked."""
    from lcad.inference.adherence import instance_report

    candidate = session.candidates[number]
    if candidate.found is None:
        return f"{number + 1}"
    judged = [row["adherent"] for row in instance_report(session.thumbnail(number), candidate.found.instances)]
    judged = [verdict for verdict in judged if verdict is not None]
    return f"{number + 1}: {sum(judged)}/{len(judged)} as asked" if judged else f"{number + 1}"


def _regions(session: "PhotoSession") -> Values:
    """The photo with its regions, the same to paint on, and the chips that go with them."""
    from lcad.io.images import jpeg_data_uri

    photo = session.overlay()
    canvas = {"value": "", "photo": jpeg_data_uri(photo)}
    return {"photo": photo, "canvas": canvas, "chips": _chips(session), "regions": True}


def _chips(session: "PhotoSession") -> str:
    numbers = range(len(session.masks.phrases))
    return markup.chips([_asked(session, k) for k in numbers], [session.masks.has_region(k) for k in numbers])


def _changed_colors(session: "PhotoSession") -> Iterator[Values]:
    """The chips, and the result in its new colours."""
    yield {"chips": _chips(session)} | NO_FILES
    if session.candidates:
        yield from result(session)


def _changed_regions(session: "PhotoSession") -> Iterator[Values]:
    """The regions, and with exact colours the result, which is another one in other regions."""
    again = bool(session.candidates and session.look.colors)
    yield _regions(session) | (NO_FILES if again else {})
    if again:
        yield from result(session)


def _asked(session: "PhotoSession", number: int) -> str | None:
    """The colour of a phrase as #rrggbb: the exact one, or what its words say."""
    from lcad.recoloring.exact_colors import parse_color, to_hex

    if number in session.look.colors:
        return to_hex(session.look.colors[number])
    for words in session.masks.phrases[number].colors:
        try:
            return to_hex(parse_color(words))
        except ValueError:
            continue
    return None


def _with_hex(rows: list[dict]) -> list[dict]:
    import torch

    from lcad.color import lab_to_rgb
    from lcad.recoloring.exact_colors import to_hex

    def shown(lab: list[float]) -> str:
        red, green, blue = lab_to_rgb(torch.tensor(lab)[:, None, None])[:, 0, 0].tolist()
        return to_hex((red, green, blue))

    return [row | {"obtained_hex": shown(row["obtained"])} for row in rows]
