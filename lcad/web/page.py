"""How the page looks, and which of its components calls which of `handlers`."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from PIL import Image, ImageOps

from lcad.web.api import UploadOnly, add_api
from lcad.web.studio import Studio
from lcad.web.visitors import Visitors
from lcad.web.wiring import leaving, wire_many, wire_photo

TITLE = "L-CAD: colour for photographs, in words"
THUMBNAIL = 200  # pixels, of the examples
FORMATS = [("the photo's own", "own"), "png", "tif", "jpg", "webp", "bmp"]
KEPT_SECONDS = 3600  # for so long files of a visit lie in Gradio's cache


def build_page(studio: Studio, examples: Path | None = None) -> gr.Blocks:
    """The page for one studio.

    Args:
        examples: a folder with `images/` and `captions.json`, as data/examples.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)) as page:
        gr.HTML(
            "<h1>L-CAD</h1><p>Colour for your photographs, in your words. Every detail of the original stays: only "
            "colour is added.</p>",
            elem_id="lcad-head",
        )
        visitors, shown = Visitors(studio), _examples(examples)
        with gr.Tab("One photo"):
            ui = _one_photo(shown)
        with gr.Tab("Many photos"):
            many = _many_photos(studio)
        wire_photo(ui, visitors, shown)
        wire_many(many, visitors)
        add_api(visitors)
        page.unload(leaving(visitors))
    return page


def _one_photo(examples: list[tuple[Path, str]]) -> SimpleNamespace:
    ui = SimpleNamespace()
    ui.chips = gr.HTML("", elem_id="lcad-chips")
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            ui.file = UploadOnly(label="Photo: drop or choose a file, 8 or 16 bit", elem_id="lcad-drop", height=120)
            if examples:
                pictures = [(_thumbnail(path), caption) for path, caption in examples]
                ui.examples = gr.Gallery(
                    [picture for picture, _ in pictures],
                    label="Or try one of these",
                    columns=7,
                    height=96,
                    allow_preview=False,
                    object_fit="cover",
                    buttons=[],
                    interactive=False,
                    format="jpeg",
                    elem_id="lcad-examples",
                )
            ui.caption = gr.Textbox(
                label="Caption: name things and their colours",
                placeholder="a girl in a red coat under a pale blue sky",
                max_length=2000,
                elem_id="lcad-caption",
            )
            ui.phrases = gr.Radio(
                label="Objects it understood. Choose one, then click its region in the picture",
                visible=False,
                elem_id="lcad-phrases",
            )
            ui.photo = gr.Image(
                label="Regions of the objects; click again for a larger one",
                interactive=False,
                buttons=[],
                format="webp",
                elem_id="lcad-photo",
            )
            _region_tools(ui)
        with gr.Column(scale=6, min_width=320):
            _results(ui)
    return ui


def _region_tools(ui: SimpleNamespace) -> None:
    with gr.Row():
        ui.previous = gr.Button("Previous region", size="sm", min_width=90)
        ui.next = gr.Button("Next region", size="sm", min_width=90)
        ui.clear = gr.Button("No region", size="sm", min_width=90)
    with gr.Row(equal_height=True):
        ui.picker = gr.ColorPicker(label="Exact colour", value="#8b1a1a", min_width=90, elem_id="lcad-picker")
        ui.color = gr.Textbox(label="or its name", placeholder="#8b1a1a, navy", min_width=120, elem_id="lcad-color")
        with gr.Column(min_width=130):
            ui.set_color = gr.Button("Give it this colour", size="sm", elem_id="lcad-set-color")
            ui.any_color = gr.Button("Any colour", size="sm")
    with gr.Accordion("Paint or erase a region", open=False) as ui.painting:
        ui.canvas = gr.ImageEditor(
            label="Paint over the object",
            type="numpy",
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(colors=["#ffd400"], default_size=24),
            canvas_size=(1024, 1024),
            format="png",
            elem_id="lcad-canvas",
        )
        with gr.Row():
            ui.add = gr.Button("Add to the region", size="sm", elem_id="lcad-add")
            ui.erase = gr.Button("Take from the region", size="sm", elem_id="lcad-erase")


def _results(ui: SimpleNamespace) -> None:
    with gr.Row():
        ui.colorize = gr.Button("Colorize", variant="primary", scale=3, elem_id="lcad-colorize")
        ui.stop = gr.Button("Stop", variant="stop", scale=1, min_width=80, elem_id="lcad-stop")
    ui.progress = gr.HTML("", elem_id="lcad-progress")
    ui.status = gr.HTML("", elem_id="lcad-status")
    ui.gallery = gr.Gallery(
        label="Candidates: choose the one to keep",
        columns=4,
        height="auto",
        allow_preview=False,
        object_fit="contain",
        buttons=[],
        interactive=False,
        format="jpeg",
        elem_id="lcad-candidates",
    )
    ui.divider = gr.ImageSlider(
        label="Before and after, at full size",
        format="jpeg",
        interactive=False,
        buttons=["fullscreen"],
        max_height=640,
        elem_id="lcad-divider",
    )
    with gr.Row():
        ui.saturation = gr.Slider(0, 2, 1, step=0.05, label="Saturation", min_width=140, elem_id="lcad-saturation")
        ui.warmth = gr.Slider(-1, 1, 0, step=0.05, label="Warmth", min_width=140, elem_id="lcad-warmth")
    ui.report = gr.HTML("", elem_id="lcad-report", label="Asked and obtained")
    with gr.Row(equal_height=True):
        ui.format = gr.Dropdown(FORMATS, value="own", label="File format", min_width=140, elem_id="lcad-format")
        ui.write = gr.Button("Make the file and its record", min_width=160, elem_id="lcad-write")
    ui.files = gr.File(label="Download", file_count="multiple", interactive=False, elem_id="lcad-files")
    with gr.Accordion("Settings", open=False), gr.Row():
        ui.number = gr.Slider(1, 8, 4, step=1, label="Candidates", min_width=140)
        ui.seed = gr.Number(0, label="Seed of the first", precision=0, minimum=0, min_width=110)
        ui.steps = gr.Number(0, label="Steps (0: the model's)", precision=0, minimum=0, min_width=110)
        ui.guidance = gr.Number(0, label="Guidance (0: the model's)", minimum=0, min_width=110)


def _many_photos(studio: Studio) -> SimpleNamespace:
    many, limits = SimpleNamespace(), studio.limits
    many.files = UploadOnly(
        label=f"Up to {limits.photos} photos, with captions.json or captions.csv if you have captions",
        file_count="multiple",
        height=180,
        elem_id="lcad-many-drop",
    )
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
    file = None if folder is None else folder / "captions.json"
    if file is None or not file.is_file():
        return []
    captions = json.loads(file.read_text(encoding="utf-8"))
    return [(folder / "images" / name, lines[0]) for name, lines in captions.items()]


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("L"), (THUMBNAIL, THUMBNAIL))
