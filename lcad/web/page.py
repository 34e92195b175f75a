"""How the page looks, and which of its components calls which of `handlers`."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from PIL import Image, ImageOps

from lcad.web.api import add_api, uploads_only
from lcad.web.markup import CANVAS
from lcad.web.studio import Studio
from lcad.web.visitors import Visitors
from lcad.web.wiring import leaving, wire_many, wire_photo

TITLE = "L-CAD: colour for photographs, in words"
COLOR = "#8b1a1a"  # that the picker starts with
THUMBNAIL = 200  # pixels, of the examples
FORMATS = [("the photo's own", "own"), "png", "tif", "jpg", "webp", "bmp"]
STILL = {"allow_preview": False, "buttons": [], "interactive": False}  # a gallery to choose from
KEPT_SECONDS = 3600  # for so long files of a visit lie in Gradio's cache


def build_page(studio: Studio, examples: Path | None = None) -> gr.Blocks:
    """The page for one studio.

    Args:
        examples: a folder with `images/` and `captions.json`, as data/examples.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)) as page:
        gr.HTML(
            "<h1>L-CAD</h1><p>Colour for your photographs, in your words. Only colour is added: every detail, the full "
            "size and the depth of the original stay.</p>",
            elem_id="lcad-head",
        )
        visitors, shown = Visitors(studio), _examples(examples)
        with gr.Tab("One photo"):
            ui = _one_photo(shown)
        with gr.Tab("Many photos"):
            many = _many_photos(studio)
        add_api(visitors)  # first: these names are its own
        wire_photo(ui, visitors, shown)
        wire_many(many, visitors)
        page.unload(leaving(visitors))
    return page


def _one_photo(examples: list[tuple[Path, str]]) -> SimpleNamespace:
    ui = SimpleNamespace()
    ui.chips = gr.HTML("", elem_id="lcad-chips")
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            _heading("1", "Photo", "any format and depth; it stays on this machine")
            drop = gr.File(label="Drop a photo, or choose one", show_label=False, elem_id="lcad-drop", height=132)
            ui.file = uploads_only(drop)
            ui.examples = gr.Gallery(
                [(_thumbnail(path), path.stem) for path, _ in examples],
                show_label=False,
                columns=max(1, len(examples)),
                visible=bool(examples),
                height="auto",
                object_fit="cover",
                format="jpeg",
                elem_id="lcad-examples",
                elem_classes="lcad-tiles",
                **STILL,
            )
            _heading("2", "Caption", "name things and their colours; empty: automatic")
            ui.caption = gr.Textbox(
                label="Caption",
                show_label=False,
                placeholder="a girl in a red coat under a pale blue sky",
                max_length=2000,
                elem_id="lcad-caption",
            )
            with gr.Column(visible=False) as ui.regions:
                _heading("3", "Objects", "choose one, then click its region; click again for a larger one")
                ui.phrases = gr.Radio(label="Objects", show_label=False, container=False, elem_id="lcad-phrases")
                ui.photo = gr.Image(
                    label="Regions of the objects",
                    show_label=False,
                    interactive=False,
                    buttons=[],
                    elem_id="lcad-photo",
                )
                _region_tools(ui)
        with gr.Column(scale=6, min_width=320):
            _results(ui)
    return ui


def _region_tools(ui: SimpleNamespace) -> None:
    with gr.Row():
        ui.previous = gr.Button("Previous region", size="sm", min_width=80)
        ui.next = gr.Button("Next region", size="sm", min_width=80, elem_id="lcad-next")
        ui.clear = gr.Button("No region", size="sm", min_width=80, elem_id="lcad-clear")
    with gr.Row(elem_classes="lcad-line"):
        ui.picker = gr.ColorPicker(label="Exact colour", value=COLOR, min_width=60, scale=1, elem_id="lcad-picker")
        ui.color = gr.Textbox(
            COLOR, label="or its name", placeholder="#8b1a1a, navy", min_width=110, scale=2, elem_id="lcad-color"
        )
        ui.set_color = gr.Button("Set", size="md", min_width=60, scale=1, elem_id="lcad-set-color")
        ui.any_color = gr.Button("Reset", size="md", min_width=70, scale=1, elem_id="lcad-any-color")
    with gr.Accordion("Paint or erase a region", open=False, elem_id="lcad-painting"):
        ui.canvas = gr.HTML("", photo="", apply_default_css=False, elem_id="lcad-canvas", **CANVAS)
        with gr.Row():
            ui.add = gr.Button("Add to the region", size="sm", elem_id="lcad-add")
            ui.erase = gr.Button("Take from the region", size="sm", elem_id="lcad-erase")


def _results(ui: SimpleNamespace) -> None:
    with gr.Row():
        ui.colorize = gr.Button("Colorize", variant="primary", scale=4, min_width=160, elem_id="lcad-colorize")
        ui.stop = gr.Button("Stop", scale=1, min_width=80, elem_id="lcad-stop")
    with gr.Accordion("Settings", open=False, elem_id="lcad-settings"), gr.Row():
        ui.number = gr.Slider(1, 8, 4, step=1, label="Candidates", min_width=140)
        ui.seed = gr.Number(0, label="Seed of the first", precision=0, minimum=0, min_width=110)
        ui.steps = gr.Number(0, label="Steps (0: the model's)", precision=0, minimum=0, min_width=110)
        ui.guidance = gr.Number(0, label="Guidance (0: the model's)", minimum=0, min_width=110)
    ui.progress = gr.HTML("", elem_id="lcad-progress")
    ui.status = gr.HTML("", elem_id="lcad-status")
    with gr.Column(visible=False) as ui.made:
        _heading("4", "Candidates", "choose the one to keep")
        ui.gallery = gr.Gallery(
            show_label=False,
            columns=4,
            height="auto",
            object_fit="contain",
            format="jpeg",
            elem_id="lcad-candidates",
            elem_classes="lcad-tiles",
            **STILL,
        )
    with gr.Column(visible=False) as ui.finished:
        ui.divider = gr.ImageSlider(
            label="Before and after, at full size",
            show_label=False,
            format="jpeg",
            interactive=False,
            buttons=["fullscreen"],
            max_height=640,
            elem_id="lcad-divider",
        )
        with gr.Row():
            ui.saturation = gr.Slider(0, 2, 1, step=0.05, label="Saturation", min_width=140, elem_id="lcad-saturation")
            ui.warmth = gr.Slider(-1, 1, 0, step=0.05, label="Warmth", min_width=140, elem_id="lcad-warmth")
        ui.report = gr.HTML("", elem_id="lcad-report")
        _heading("5", "Download", "full size and depth, with a record of how it was made")
        with gr.Row(elem_classes="lcad-line"):
            ui.format = gr.Dropdown(FORMATS, value="own", label="File format", min_width=130, elem_id="lcad-format")
            ui.write = gr.Button("Make the file", variant="primary", min_width=130, elem_id="lcad-write")
        ui.files = gr.File(
            label="Result and record", file_count="multiple", interactive=False, visible=False, elem_id="lcad-files"
        )


def _heading(number: str, text: str, hint: str) -> None:
    gr.HTML(f"<h2><b>{number}</b> {text} <small>{hint}</small></h2>", elem_classes="lcad-heading")


def _many_photos(studio: Studio) -> SimpleNamespace:
    many, limits = SimpleNamespace(), studio.limits
    drop = gr.File(
        label=f"Up to {limits.photos} photos, with captions.json or captions.csv if you have captions",
        file_count="multiple",
        height=180,
        elem_id="lcad-many-drop",
    )
    many.files = uploads_only(drop)
    many.caption = gr.Textbox(label="Caption of photos without one", placeholder="empty: colorized automatically")
    many.seed = gr.Number(0, label="Seed", precision=0, minimum=0, visible=False)
    with gr.Row():
        many.colorize = gr.Button("Colorize all", variant="primary", scale=3, elem_id="lcad-many-colorize")
        many.stop = gr.Button("Stop", variant="stop", scale=1, min_width=80)
    many.progress = gr.HTML("")
    many.status = gr.HTML("", elem_id="lcad-many-status")
    many.archive = gr.File(label="ZIP of results, records and the contact sheet", interactive=False, elem_id="lcad-zip")
    many.sheet = gr.Image(label="Contact sheet", interactive=False, buttons=["fullscreen"], format="jpeg")
    return many


def _examples(folder: Path | None) -> list[tuple[Path, str]]:
    """Photos with a caption of their own, in the order of the captions."""
    if folder is None or not (folder / "captions.json").is_file():
        return []
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    return [(folder / "images" / name, lines[0]) for name, lines in captions.items()]


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("L"), (THUMBNAIL, THUMBNAIL))
