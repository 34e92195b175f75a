"""What the page offers to programs: the same two actions as single calls, for `gradio_client` (docs/web.md)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from lcad.defaults import PLAIN_LOOK
from lcad.web.visitors import Visitors

if TYPE_CHECKING:
    from lcad.web.session import PhotoSession

Told = TypeVar("Told")
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


def uploads_only(drop: gr.File) -> gr.File:
    """A drop zone that takes files and no addresses, which the server would otherwise fetch."""
    move = drop.async_move_resource_to_block_cache

    async def move_file(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).lower().startswith(("http://", "https://")):
            raise gr.Error("give a file, not an address", print_exception=False)
        return await move(url_or_file_path)

    drop.async_move_resource_to_block_cache = move_file
    return drop


def add_api(visitors: Visitors) -> None:
    """Add `/colorize` and `/colorize_many` to the page that is being built."""
    with gr.Row(visible=False):
        photo = uploads_only(gr.File(label="photo"))
        files = uploads_only(gr.File(label="files", file_count="multiple"))
        caption, colors = gr.Textbox("", label="caption"), gr.Textbox("", label="colors")
        seed = gr.Number(0, label="seed", precision=0)
        saturation, warmth = (gr.Number(value, label=name) for name, value in PLAIN_LOOK.items())
        kind = gr.Textbox("own", label="file_format")
        results, report = gr.File(label="files", file_count="multiple"), gr.JSON(label="report")
        archive, problems = gr.File(label="archive"), gr.JSON(label="problems")
        one, many = gr.Button("colorize"), gr.Button("colorize_many")

    def colorize(
        request: gr.Request,
        photo: str | None,
        caption: str,
        colors: str,
        seed: int,
        saturation: float,
        warmth: float,
        file_format: str,
    ) -> tuple[list[str], list[dict]]:
        """Colorize one photo -> the result's file and its record, and what was asked and obtained."""
        session = visitors.session(request.session_hash)
        return _told(lambda: _colorize(session, photo, caption, colors, seed, (saturation, warmth), file_format))

    def colorize_many(
        request: gr.Request, files: list[str] | None, caption: str, seed: int
    ) -> tuple[str | None, list[str]]:
        """Colorize photos, with caption files among them -> a ZIP, and a line for each problem."""
        session = visitors.session(request.session_hash)
        return _told(lambda: _colorize_many(session, files, caption, seed))

    given = [photo, caption, colors, seed, saturation, warmth, kind]
    one.click(colorize, given, [results, report], api_name="colorize", **MODEL)
    many.click(colorize_many, [files, caption, seed], [archive, problems], api_name="colorize_many", **MODEL)


def _colorize(
    session: "PhotoSession",
    photo: str | None,
    caption: str,
    colors: str,
    seed: int,
    look: tuple[float, float],
    kind: str,
) -> tuple[list[str], list[dict]]:
    if not photo:
        raise ValueError("there is no photo; give a file")
    session.open(Path(photo))
    session.read_caption(caption)
    for _ in session.colorize(1, int(seed)):
        pass
    for line in filter(None, (part.strip() for part in (colors or "").split(";"))):
        where, equals, color = line.rpartition("=")
        if not equals:
            raise ValueError(f"{line!r}: expected <object>=<colour>; <object>=<colour>, such as coat=#8b1a1a")
        session.set_color(session.masks.number_of(where), color)
    session.set_look(*look)
    return [str(path) for path in session.write(kind)], session.report()


def _colorize_many(
    session: "PhotoSession", files: list[str] | None, caption: str, seed: int
) -> tuple[str | None, list[str]]:
    from lcad.web.batch import Finished, colorize_all

    given = [Path(file) for file in files or []]
    items = colorize_all(session.studio, given, session.folder / "batch", caption, int(seed))
    (done,) = [item for item in items if isinstance(item, Finished)]
    return None if done.archive is None else str(done.archive), done.problems


def _told(action: Callable[[], Told]) -> Told:
    from lcad.web.wiring import one_line

    try:
        return action()
    except Exception as error:
        raise gr.Error(one_line(error), print_exception=False) from None
