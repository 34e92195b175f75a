"""A tiny model, a few small photos, and the reference numbers."""

import json
import os
import random
import shutil
from functools import cache
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, and so do the scripts that they start
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder is not asked for again and again

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from lcad.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig
from lcad.pipeline import LCADPipeline
from lcad.training.start import build_pipeline
from ldm.text_encoder import build_tokenizer

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"

torch.set_num_threads(1)

for name, number in (("few", 8), ("many", 200)):
    settings.register_profile(
        name, max_examples=number, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
settings.load_profile("few")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Each test draws the same, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def tiny_config(sites: str = "down_blocks") -> ModelConfig:
    return ModelConfig(
        image_size=32,
        autoencoder=AutoencoderConfig([8, 16, 16], 1, 4, 4),
        unet=UNetConfig([16, 32], [True, True], 1, 2, 8, sites),
        text=TextConfig(16, 1, 2, 32),
    )


@pytest.fixture(scope="session", autouse=True)
def one_tokenizer():
    """Of all models that tests build or read: making it takes longer than the rest of a tiny one."""
    read, kept = CLIPTokenizer.from_pretrained, {}

    def read_once(folder: Path, **options: object) -> CLIPTokenizer:
        content = tuple((file.name, file.read_bytes()) for file in sorted(Path(folder).glob("*")) if file.is_file())
        if content not in kept:
            kept[content] = read(folder, **options)
        return kept[content]

    with pytest.MonkeyPatch.context() as patch:
        once = cache(build_tokenizer)
        patch.setattr("lcad.models.loading.CLIPTokenizer.from_pretrained", read_once)
        for module in ("lcad.models.builder", "lcad.conversion"):
            patch.setattr(f"{module}.build_tokenizer", once)
        yield


def randomize_additions(pipeline: LCADPipeline) -> LCADPipeline:
    """Give the zero-initialised additions weights, as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in (pipeline.luminance_encoder.zero_convs, pipeline.unet):
        for name, parameter in module.named_parameters():
            if "extension" in name or module is pipeline.luminance_encoder.zero_convs:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return pipeline


@pytest.fixture(scope="session")
def tiny_pipeline() -> LCADPipeline:
    torch.manual_seed(0)
    pipeline = randomize_additions(build_pipeline(tiny_config()))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_pipeline) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def squeezenet_file(tmp_path_factory) -> Path:
    """SqueezeNet's convolutions, random."""
    import torchvision  # slow, and few tests want it

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("squeezenet") / "squeezenet.safetensors"
    weights = torchvision.models.squeezenet1_1(weights=None).state_dict()
    save_file({name: value for name, value in weights.items() if name.startswith("features.")}, path)
    return path


def train_on(stage: torch.nn.Module, batch: dict, steps: int, learning_rate: float) -> list[float]:
    """The losses of some steps of Adam on one batch with the same noise."""
    optimizer = torch.optim.Adam([value for value in stage.parameters() if value.requires_grad], learning_rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = stage._loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def random_photo(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth random picture: not noise, so that JPEG keeps it."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """Eight photos with captions and masks for the first."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for i in range(8):
        random_photo(i).save(folder / "images" / f"p{i}.png")
    captions = {f"p{i}.png": [f"the red cup {i}, the blue cup"] for i in range(7)}  # the last has none
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "masks" / "p0").mkdir(parents=True)
    for i in range(2):
        mask = np.zeros((40, 48), np.uint8)
        mask[:, 24 * i : 24 * (i + 1)] = 255
        Image.fromarray(mask).save(folder / "masks" / "p0" / f"{i}_cup.png")
    return folder


@pytest.fixture
def run(tiny_checkpoint, tmp_path, capsys):
    """Run scripts/sample.py; returns exit status, stderr and the output folder."""
    from scripts import sample

    out = tmp_path / "out"

    def call(*args: object, output: Path = out) -> tuple[int, str]:
        capsys.readouterr()
        options = ["--model", tiny_checkpoint, "--steps", 2, "--output", output, "--device", "cpu", *args]
        status = sample.main([str(option) for option in options])
        captured = capsys.readouterr()
        call.printed = captured.out + captured.err
        return status, captured.err

    call.out = out
    return call


@pytest.fixture(scope="session")
def page_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny model, two steps."""
    folder = tmp_path_factory.mktemp("page") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"num_inference_steps": 2}))
    return folder


@pytest.fixture(scope="session")
def page_server(page_checkpoint):
    """The page, one for all tests in a browser."""
    from tests.browser import Server

    server = Server(page_checkpoint, "--max-upload", "2", "--keep", str(page_checkpoint.parent / "kept"))
    yield server
    printed = server.stop()
    gradio = "InvalidPathError: Cannot move", "ClientDisconnect"  # its words on forged paths, and on pages left early
    assert printed.count("Traceback") == sum(map(printed.count, gradio)), printed


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    from tests.browser import CHROMIUM, DRIVER, browser

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium or no chromedriver on this machine: apt-get install chromium chromium-driver")
    with browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(page_server, chromium, tmp_path):
    from tests.browser import Page

    page = Page(chromium, page_server.url, tmp_path)
    yield page
    page.look_as()


@pytest.fixture
def scan(tmp_path) -> Path:
    """A 16 bit TIFF of two halves of different luminance: two regions."""
    values = np.full((60, 80), 18000, np.uint16)
    values[:, 40:] = 46000
    tifffile.imwrite(tmp_path / "scan.tif", values)
    return tmp_path / "scan.tif"
