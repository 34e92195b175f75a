"""The ComfyUI nodes against the library, with ComfyUI's tensors; loaded as ComfyUI loads a folder of nodes."""

import importlib.util
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch

from lcad.color import rgb_to_luminance
from lcad.io.images import read_image, to_tensor
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.sources import build_finder
from lcad.recoloring.registration import WrongPair
from lcad.recoloring.transfer import transfer_colors
from lcad.recoloring.transfer_reference import reference_colors
from tests.conftest import random_photo

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "integrations" / "comfyui"
WORKFLOWS = FOLDER / "workflows"
CORE = {  # ComfyUI's own nodes in the workflows: inputs and outputs
    "LoadImage": ({"image": "COMBO"}, ("IMAGE", "MASK")),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, ()),
    "MaskToImage": ({"mask": "MASK"}, ("IMAGE",)),
    "PreviewImage": ({"images": "IMAGE"}, ()),
}


def load(name: str):
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


nodes = load("custom_nodes_lcad")
NODES = nodes.NODE_CLASS_MAPPINGS


def call(name: str, **inputs) -> tuple:
    node = NODES[name]()
    return getattr(node, node.FUNCTION)(**inputs)


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    (pipeline,) = call("LCADLoad", model=str(tiny_checkpoint), device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def image() -> torch.Tensor:
    """IMAGE of two photos."""
    return torch.stack([to_tensor(random_photo(seed)).movedim(0, -1) for seed in (1, 2)])


def inputs_of(node: type) -> dict[str, tuple]:
    types = node.INPUT_TYPES()
    return types["required"] | types.get("optional", {})


@pytest.mark.parametrize("name", sorted(NODES))
def test_nodes_keep_comfyuis_conventions(name):
    node = NODES[name]
    assert nodes.NODE_DISPLAY_NAME_MAPPINGS.keys() == NODES.keys()
    assert node.CATEGORY == "L-CAD" and len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    assert list(parameters)[1:] == list(inputs_of(node))
    required = node.INPUT_TYPES()["required"]
    assert all(
        name in required for name, value in parameters.items() if value.default is value.empty and name != "self"
    )
    for kind, *options in inputs_of(node).values():
        if isinstance(kind, list) and options:
            assert options[0]["default"] in kind


def test_colorize_is_the_pipeline(model, image):
    (result,) = call("LCADColorize", model=model, image=image, caption="a red cup", seed=3, steps=2, guidance=2.0)
    assert result.shape == image.shape and result.dtype == torch.float32 and 0 <= result.min() <= result.max() <= 1
    photos = list(image.movedim(-1, 1))
    own = model(
        photos,
        "a red cup",
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(3) for _ in photos],
        output_type="pt",
    ).images
    assert torch.equal(result, torch.stack(own).movedim(1, -1))
    with_alpha = torch.cat([image, torch.rand(*image.shape[:3], 1)], dim=-1)
    again = call("LCADColorize", model=model, image=with_alpha, caption="a red cup", seed=3, steps=2, guidance=2.0)[0]
    assert torch.equal(result, again)
    given, kept = (rgb_to_luminance(batch.movedim(-1, 1)) for batch in (image, result))
    assert (given - kept).abs().max() < 0.05


def test_colorize_without_a_caption_takes_the_models_own_settings(model, image):
    model.register_to_config(num_inference_steps=2)
    (result,) = call("LCADColorize", model=model, image=image[:1], caption=" ", seed=0)
    own = model(list(image[:1].movedim(-1, 1)), None, generator=[torch.Generator().manual_seed(0)], output_type="pt")
    assert torch.equal(result[0], own.images[0].movedim(0, -1))


def test_painted_masks_reach_the_sampler(model, image):
    left = torch.zeros(2, *image.shape[1:3])
    left[0, :, :24], left[1, :, 24:] = 1, 1
    inputs = {"model": model, "image": image[:1], "caption": "a red cup, a blue cup", "seed": 0, "steps": 2}
    plain, masked = call("LCADColorize", **inputs)[0], call("LCADColorize", **inputs, mask=left)[0]
    own = model(
        [image[0].movedim(-1, 0)],
        "a red cup, a blue cup",
        [left],
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(0)],
        output_type="pt",
    ).images[0]
    assert torch.equal(masked[0], own.movedim(0, -1)) and not torch.equal(plain, masked)


def test_find_masks_is_the_librarys_finder_and_feeds_colorize():
    (model,) = call("LCADLoad", model="mini", device="cpu")  # the bundled one, which finds something
    photo = read_image(ROOT / "data" / "examples" / "images" / "coffee.jpg").resize((96, 64))
    image = to_tensor(photo).movedim(0, -1)[None]
    caption = "a red cup, a brown table"
    masks, mask, phrases = call("LCADFindMasks", model=model, image=image, caption=caption)
    own = build_finder("auto", model)(Path(), PreparedPhoto.of(photo), caption)
    assert len(masks) == 1
    assert torch.equal(masks[0].masks, own.instances.masks)
    assert mask.shape == (len(own.instances.phrases), 64, 96) and 0 <= mask.min() <= mask.max() <= 1
    assert phrases.splitlines() == [f"0: {phrase.text}" for phrase in own.instances.phrases]
    inputs = {"model": model, "image": image, "caption": caption, "seed": 0, "steps": 2}
    assert call("LCADColorize", **inputs, masks=masks)[0].shape == image.shape
    nothing = call("LCADFindMasks", model=model, image=image, caption="")
    assert nothing[0] == [None] and nothing[1].shape == (1, 64, 96) and nothing[2] == ""
    assert call("LCADColorize", **inputs, masks=nothing[0])[0].shape == image.shape


@pytest.mark.parametrize(("shown", "method"), [("same photo", transfer_colors), ("similar photo", reference_colors)])
def test_transfer_colors_is_the_librarys(shown, method):
    photo = read_image(ROOT / "data" / "examples" / "images" / "coffee.jpg").resize((240, 160))
    colors = to_tensor(photo.resize((150, 100)))
    image = to_tensor(photo.convert("L")).movedim(0, -1)[None].repeat(2, 1, 1, 1)
    rest = torch.zeros_like(image[:1])
    rest[..., 0] = 0.5
    result, confidence, report = call(
        "LCADTransferColors", image=image, colors=colors.movedim(0, -1)[None], colors_show=shown, rest=rest
    )
    luminance = rgb_to_luminance(image[0].movedim(-1, 0))
    own = method(luminance, colors)
    expected = own.recolored(luminance, rest[0].movedim(-1, 0)).movedim(0, -1)
    assert torch.equal(result[0], expected) and torch.equal(result[0], result[1]) and result.shape == image.shape
    assert confidence.shape == (2, 160, 240) and torch.equal(confidence[0], own.confidence_at((160, 240)))
    assert report.splitlines()[0].startswith(f"0: used {own.report()['used']}")


def test_mistakes_have_reasons(model, image):
    with pytest.raises(ValueError, match="expected"):
        call("LCADColorize", model=model, image=image[0], caption="", seed=0)
    with pytest.raises(ValueError, match="connect one"):
        call(
            "LCADColorize", model=model, image=image, caption="", seed=0, masks=[None, None], mask=torch.ones(1, 40, 48)
        )
    with pytest.raises(ValueError, match="same batch"):
        call("LCADColorize", model=model, image=image, caption="", seed=0, masks=[None])
    with pytest.raises(ValueError, match="one for each"):
        call("LCADTransferColors", image=image, colors=torch.rand(3, 40, 48, 3))
    with pytest.raises(ValueError, match="allowed: same photo, similar photo"):
        call("LCADTransferColors", image=image, colors=image, colors_show="nothing")
    with pytest.raises(WrongPair):
        call("LCADTransferColors", image=image[:1], colors=torch.rand(1, 40, 48, 3))
    with pytest.raises(ValueError, match="no such checkpoint"):
        call("LCADLoad", model="no/such/folder")


def signature(kind: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Inputs by name with their types, and the types of the outputs."""
    if kind in CORE:
        return CORE[kind]
    types = {
        name: "COMBO" if isinstance(value[0], list) else value[0] for name, value in inputs_of(NODES[kind]).items()
    }
    return types, NODES[kind].RETURN_TYPES


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*_api.json")), ids=lambda path: path.stem)
def test_workflows_of_the_api_fit_the_nodes(path):
    workflow = json.loads(path.read_text())
    for node in workflow.values():
        types, _ = signature(node["class_type"])
        assert node["inputs"].keys() <= types.keys()
        if node["class_type"] in NODES:
            assert node["inputs"].keys() >= NODES[node["class_type"]].INPUT_TYPES()["required"].keys()
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source, slot = value
                assert signature(workflow[source]["class_type"])[1][slot] == types[name]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*_ui.json")), ids=lambda path: path.stem)
def test_workflows_of_the_page_fit_the_nodes_and_those_of_the_api(path):
    workflow = json.loads(path.read_text())
    by_id = {node["id"]: node for node in workflow["nodes"]}
    assert workflow["last_node_id"] == max(by_id) and workflow["last_link_id"] == max(
        link[0] for link in workflow["links"]
    )
    for number, source, slot, target, place, kind in workflow["links"]:
        output, taken = by_id[source]["outputs"][slot], by_id[target]["inputs"][place]
        assert number in output["links"] and taken["link"] == number and kind == output["type"] == taken["type"]
        assert signature(by_id[source]["type"])[1][slot] == kind == signature(by_id[target]["type"])[0][taken["name"]]
    api = json.loads(path.with_name(path.name.replace("_ui", "_api")).read_text())
    assert {str(number): node["type"] for number, node in by_id.items()} == {
        number: node["class_type"] for number, node in api.items()
    }
    for number, node in by_id.items():
        values = [value for value in node.get("widgets_values", []) if value not in ("fixed", "image")]
        assert values == [value for value in api[str(number)]["inputs"].values() if not isinstance(value, list)]


def test_there_is_a_workflow_of_each_form():
    assert list(WORKFLOWS.glob("*_ui.json")) and list(WORKFLOWS.glob("*_api.json"))
