"""Between Gradio's events and `handlers`: whose session it is, which component a name means, and errors in one line."""

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr

from lcad.web import handlers, markup
from lcad.web.progress import Step
from lcad.web.visitors import Visitors

if TYPE_CHECKING:
    from lcad.web.session import PhotoSession

USER_ERRORS = (OSError, ValueError)
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "once"}
"""Events that sample wait for each other."""
CHANGED = (
    *("photo", "chips", "phrases", "caption", "gallery", "divider", "report", "files", "saturation", "warmth"),
    *("status", "progress", "canvas", "picker", "file", "examples", "regions", "made", "finished"),
)
log = logging.getLogger(__name__)


def one_line(error: Exception) -> str:
    """What is shown of an error: a visitor's mistake in its own words; a defect by its name, the rest is logged."""
    if isinstance(error, USER_ERRORS):
        return " ".join(str(error).split()) or type(error).__name__
    log.error("a defect, please report it", exc_info=error)
    return f"something went wrong here ({type(error).__name__}); the server's log has the rest"


def wire_photo(ui: SimpleNamespace, visitors: Visitors, examples: list[tuple[Path, str]]) -> None:
    """The events of the tab for one photo."""
    outputs = [getattr(ui, name) for name in CHANGED]

    def wire(trigger: Callable, function: Callable, *names: str, selects: bool = False, **options: Any) -> None:
        inputs = [getattr(ui, name) for name in names]
        made = _selecting(ui, visitors, function) if selects else _plain(ui, visitors, function)
        modes = {"trigger_mode": "multiple" if selects else "always_last"}  # Gradio would ignore a press during another
        options = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"} | modes | options
        trigger(made, inputs, outputs, **options)

    def example(session: "PhotoSession", number: int) -> Iterator[handlers.Values]:
        path, caption = examples[number]
        yield {"caption": caption}
        yield from handlers.open_photo(session, str(path), caption)

    wire(ui.file.upload, handlers.open_photo, "file", "caption")
    wire(ui.examples.select, example, selects=True)
    wire(ui.caption.submit, handlers.read_caption, "caption")
    wire(ui.caption.blur, handlers.read_caption, "caption")
    wire(ui.photo.select, handlers.click, "phrases", selects=True)
    wire(ui.next.click, partial(handlers.step_region, by=1), "phrases")
    wire(ui.previous.click, partial(handlers.step_region, by=-1), "phrases")
    wire(ui.clear.click, handlers.clear_region, "phrases")
    wire(ui.set_color.click, handlers.set_color, "phrases", "color")
    wire(ui.color.submit, handlers.set_color, "phrases", "color")
    wire(ui.any_color.click, handlers.any_color, "phrases")
    ui.picker.change(None, ui.picker, ui.color, js="color => color", api_visibility="private")
    wire(ui.add.click, partial(handlers.paint, erase=False), "phrases", "canvas")
    wire(ui.erase.click, partial(handlers.paint, erase=True), "phrases", "canvas")
    wire(ui.colorize.click, handlers.colorize, "caption", "number", "seed", "steps", "guidance", **MODEL)
    wire(ui.stop.click, handlers.stop, queue=False)
    wire(ui.gallery.select, handlers.keep, selects=True)
    for slider in (ui.saturation, ui.warmth):
        wire(slider.change, handlers.change_look, "saturation", "warmth", trigger_mode="multiple")
    wire(ui.write.click, handlers.write, "format")


def wire_many(many: SimpleNamespace, visitors: Visitors) -> None:
    """The events of the tab for many photos."""
    cancels: dict[str, threading.Event] = {}  # of those who wait for a batch

    def colorize(request: gr.Request, files: list[str] | None, caption: str, seed: float) -> Iterator[dict]:
        from lcad.web.batch import colorize_all

        session = visitors.session(request.session_hash)
        cancel = cancels[request.session_hash] = threading.Event()
        yield {many.status: "", many.archive: None, many.sheet: None}
        try:
            given, place = [Path(file) for file in files or []], session.folder / "batch"
            for item in colorize_all(visitors.studio, given, place, caption, int(seed or 0), cancel):
                if isinstance(item, Step):
                    yield {many.progress: markup.progress(item)}
                    continue
                lines = markup.status([item.text, *item.problems[:50]], problem=bool(item.problems))
                yield {many.status: lines, many.archive: _text(item.archive), many.sheet: _text(item.sheet)}
        except Exception as error:
            yield {many.status: markup.status([one_line(error)], problem=True)}
        finally:
            cancels.pop(request.session_hash, None)
        yield {many.progress: ""}

    def stop(request: gr.Request) -> None:
        if request.session_hash in cancels:
            cancels[request.session_hash].set()

    outputs = [many.progress, many.status, many.archive, many.sheet]
    options = {"api_visibility": "private", "show_progress": "hidden"}
    many.colorize.click(colorize, [many.files, many.caption, many.seed], outputs, **options, **MODEL)
    many.stop.click(stop, queue=False, **options)


def leaving(visitors: Visitors) -> Callable:
    """What is done when a page is left."""

    def leave(request: gr.Request) -> None:
        visitors.leave(request.session_hash)

    return leave


def _plain(ui: SimpleNamespace, visitors: Visitors, function: Callable) -> Callable:
    if not inspect.isgeneratorfunction(function):

        def once(request: gr.Request, *given: object) -> dict:
            return next(_values(ui, visitors, request, function, given))

        return once

    def many(request: gr.Request, *given: object) -> Iterator[dict]:
        yield from _values(ui, visitors, request, function, given)

    return many


def _selecting(ui: SimpleNamespace, visitors: Visitors, function: Callable) -> Callable:
    """A handler whose last value is what was selected: a number, or a pixel (x, y)."""

    def select(request: gr.Request, event: gr.SelectData, *given: object) -> Iterator[dict]:
        yield from _values(ui, visitors, request, function, (*given, event.index))

    return select


def _values(
    ui: SimpleNamespace, visitors: Visitors, request: gr.Request, function: Callable, given: tuple
) -> Iterator[dict]:
    """What a handler gives, by components; an error is one line in the status."""
    try:
        made = function(visitors.session(request.session_hash), *given)
        for values in made if isinstance(made, Iterator) else [made]:
            yield {getattr(ui, name): _update(name, value) for name, value in values.items()} or {ui.status: gr.skip()}
    except Exception as error:
        yield {ui.status: markup.status([one_line(error)], problem=True), ui.progress: ""}


def _update(name: str, value: object) -> object:
    if name in ("regions", "made", "finished"):
        return gr.update(visible=value)
    return gr.update(**value) if isinstance(value, dict) else value


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
