"""Mask providers: luminance on synthetic pictures; SAM, CLIPSeg and Grounding DINO as small random models."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from lcad.io.images import shrink
from lcad.masks.providers import PROVIDERS, ProviderOptions
from lcad.masks.referring import _detection_prompt, boxed_regions, clipseg_provider, grounding_dino_provider
from lcad.masks.sam import box_masks, load_sam, sam_provider, sam_regions
from lcad.masks.superpixels import AREA, LONG_SIDE
from lcad.masks.types import enlarge
from ldm.checkpoint import CheckpointError
from tests.conftest import random_photo

TOKENIZER = Path(__file__).parents[1] / "checkpoints" / "mini" / "tokenizer"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
WORDS = ["cup", "", "hat"]


def tiny_sam(width: int = 16) -> Sam:
    return Sam(
        ImageEncoderViT(
            img_size=64, embed_dim=width, depth=2, num_heads=2, out_chans=16, window_size=2, global_attn_indexes=[1],
            use_rel_pos=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        ),
        PromptEncoder(16, (4, 4), (64, 64), 4),
        MaskDecoder(
            transformer_dim=16, transformer=TwoWayTransformer(1, 16, 2, 32), iou_head_depth=2, iou_head_hidden_dim=16
        ),
        [123.675, 116.28, 103.53],
        [58.395, 57.12, 57.375],
    )  # fmt: skip


BUILDERS = {"tiny": tiny_sam, "wide": partial(tiny_sam, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A SAM checkpoint and folders of a CLIPSeg and a Grounding DINO."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sam = tiny_sam().state_dict()
    torch.save(sam, folder / "sam.pth")
    save_file(sam, folder / "sam.safetensors")

    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    clipseg = transformers.CLIPSegConfig(
        text_config={**layers, "vocab_size": 49408},
        vision_config={**layers, "image_size": 32, "patch_size": 8},
        projection_dim=16, extract_layers=[0, 1], reduce_dim=8, decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )  # fmt: skip
    transformers.CLIPSegForImageSegmentation(clipseg).save_pretrained(folder / "clipseg")
    transformers.CLIPSegProcessor(
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
        transformers.CLIPTokenizer.from_pretrained(TOKENIZER),
    ).save_pretrained(folder / "clipseg")

    dino = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=2, out_indices=[2, 3]
        ),
        text_config=transformers.BertConfig(vocab_size=32, max_position_embeddings=64, **layers),
        num_queries=5, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_feature_levels=2, max_text_len=16,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(dino).save_pretrained(folder / "dino")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "cup", "hat", "red", "##s"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(size={"shortest_edge": 48, "longest_edge": 64}),
        transformers.BertTokenizer(vocab=str(folder / "vocab.txt")),
    ).save_pretrained(folder / "dino")
    return folder


def sam_options(folder: Path, device: str = "cpu", **fields) -> ProviderOptions:
    return ProviderOptions(**{"checkpoint": str(folder / "sam.pth"), "model_type": "tiny", "device": device, **fields})


def check(regions, photo: Image.Image) -> None:
    masks, scores = regions.masks, regions.scores
    assert masks.shape[1:] == (photo.height, photo.width) and masks.dtype == scores.dtype == torch.float32
    assert len(masks) == len(regions.phrases) == len(scores) and masks.device == scores.device == torch.device("cpu")
    assert not masks.requires_grad and not masks.is_inference()
    for values in (masks, scores):
        assert ((values >= 0) & (values <= 1)).all()


def best_iou(masks, wanted: np.ndarray) -> float:
    masks = masks.numpy() > 0.5
    return ((masks & wanted).sum((1, 2)) / (masks | wanted).sum((1, 2))).max()


def discs(size: int = 256) -> tuple[Image.Image, list[np.ndarray]]:
    """Three discs of different luminance on a textured ground, and their masks."""
    y, x = np.mgrid[:size, :size] / size
    picture = 110 + 12 * np.sin(60 * x) * np.sin(50 * y) + np.random.default_rng(0).normal(0, 4, (size, size))
    masks = []
    for cx, cy, radius, value in ((0.25, 0.3, 0.15, 220), (0.7, 0.3, 0.1, 30), (0.6, 0.75, 0.18, 165)):
        masks.append((x - cx) ** 2 + (y - cy) ** 2 < radius**2)
        picture[masks[-1]] = value
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)), masks


luminance = PROVIDERS["regions"](ProviderOptions())


@pytest.mark.parametrize("size", [256, 600])
def test_discs_are_found_by_their_luminance(size):
    photo, wanted = discs(size)
    regions = luminance(photo, WORDS)
    check(regions, shrink(photo, LONG_SIDE))
    assert all(best_iou(enlarge(regions.masks, photo), disc) > 0.8 for disc in wanted)
    area = regions.masks.mean((1, 2))
    assert len(area) <= 40 and area.min() > 0.9 * AREA[0] and area.max() < AREA[1] + 0.01
    assert set(regions.phrases) == {None} and (regions.scores == 1).all()
    assert torch.equal(regions.masks, luminance(photo, []).masks)


def test_regions_are_limited_to_the_best():
    photo, _ = discs()
    best = PROVIDERS["regions"](ProviderOptions(max_regions=2))(photo, WORDS)
    assert torch.equal(best.masks, luminance(photo, WORDS).masks[:2])


@pytest.mark.parametrize("size", [(64, 64), (48, 1), (1, 48), (1, 1), (3, 2), (2000, 1)])
def test_flat_and_tiny_photos(size):
    flat = Image.new("L", size, 128)
    segmented = shrink(flat, LONG_SIDE)
    assert luminance(flat, WORDS).masks.shape == (0, *segmented.size[::-1])
    check(luminance(random_photo(0, *size), WORDS), segmented)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(48, 40), (90, 1), (1, 1)])
def test_sam_gives_regions_for_any_phrase(folder, size, device):
    photo = random_photo(0, *size).convert("L")
    sam = load_sam(sam_options(folder, device), BUILDERS)
    assert sam.device.type == device and not any(p.requires_grad for p in sam.parameters())
    everything = {"points_per_side": 3, "pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
    regions = sam_regions(sam, 4, **everything)(photo, WORDS)
    check(regions, photo)
    assert set(regions.phrases) <= {None} and len(regions.masks) <= 4
    assert torch.equal(regions.scores, regions.scores.sort(descending=True).values)
    assert torch.equal(regions.masks, sam_regions(sam, 4, **everything)(photo, []).masks)
    if size == (48, 40):
        assert len(regions.masks) == 4 and set(regions.masks.unique().tolist()) <= {0, 1}
        boxes = box_masks(sam, photo, torch.tensor([[0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1]]))
        assert boxes.shape == (2, 40, 48) and boxes.dtype == torch.float32 and boxes.device.type == "cpu"


def test_sam_reads_safetensors_and_may_find_nothing(folder):
    provider = sam_provider(sam_options(folder, checkpoint=str(folder / "sam.safetensors")), BUILDERS)
    nothing = sam_regions(load_sam(sam_options(folder), BUILDERS), pred_iou_thresh=9.0)(random_photo(0), WORDS)
    check(nothing, random_photo(0))
    assert len(nothing.masks) == 0
    check(provider(random_photo(0), WORDS), random_photo(0))


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"checkpoint": None}, "download sam_vit_h"),
        ({"checkpoint": "absent.pth"}, "absent.pth: no such weight file"),
        ({"model_type": "vit_x"}, "unknown SAM model type 'vit_x'; allowed: tiny, wide"),
        ({"model_type": "wide"}, "sam.pth: not a SAM checkpoint of type wide .*wrong shapes.*give the type"),
    ],
)
def test_wrong_sam_checkpoints_are_one_line(folder, fields, reason):
    with pytest.raises(ValueError, match=reason) as error:
        sam_provider(sam_options(folder, **fields), BUILDERS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(48, 40), (90, 1), (3, 1)])
def test_clipseg_gives_a_soft_region_for_each_phrase(folder, size, device):
    photo = random_photo(0, *size).convert("L")
    provider = clipseg_provider(ProviderOptions(text_segmenter=str(folder / "clipseg"), device=device))
    regions = provider(photo, WORDS)
    check(regions, photo)
    assert regions.phrases == [0, 2] and torch.equal(regions.scores, regions.masks.amax((1, 2)))
    one = provider(photo, ["hat"])
    assert one.phrases == [0] and torch.allclose(one.masks[0], regions.masks[1], atol=1e-6)
    assert len(provider(photo, ["", " "]).masks) == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(48, 40), (90, 1), (3, 1)])
def test_grounding_dino_gives_a_region_for_each_box(folder, size, device):
    photo = random_photo(0, *size)
    options = sam_options(folder, device, text_segmenter=str(folder / "dino"))
    check(grounding_dino_provider(options, BUILDERS)(photo.convert("L"), WORDS), photo)

    model = transformers.GroundingDinoForObjectDetection.from_pretrained(folder / "dino").to(device).eval()
    processor = transformers.GroundingDinoProcessor.from_pretrained(folder / "dino")
    provider = boxed_regions(model, processor, load_sam(options, BUILDERS), max_regions=3, threshold=0)
    regions, again = provider(photo, WORDS), provider(photo, WORDS)
    check(regions, photo)
    assert set(regions.phrases) <= {0, 2} and len(regions.masks) <= 3 and torch.equal(regions.masks, again.masks)
    assert len(regions.masks) > 0 or size != (48, 40)
    assert len(provider(photo, [" ", "."]).masks) == 0
    check(provider(photo, ["hat"] * 20), photo)  # more than the prompt holds


def test_words_keep_their_tokens_in_the_prompt(folder):
    tokenizer = transformers.GroundingDinoProcessor.from_pretrained(folder / "dino").tokenizer
    text, tokens = _detection_prompt(tokenizer, ["Cup", "red. hats", "cup"], 9)
    assert tokenizer.decode(text.input_ids[0]).startswith("[CLS] cup. red hats. cup")
    assert tokens == [[1], [3, 4, 5], [7]]
    assert _detection_prompt(tokenizer, ["cup", "red hats", "cup"], 7)[1] == [[1], [3, 4, 5], []]


def test_models_that_cannot_be_loaded_are_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    cases = [
        (None, "CIDAS/clipseg-rd64-refined: cannot be loaded .*download all files of https://huggingface.co/CIDAS"),
        (str(tmp_path / "empty"), "empty: cannot be loaded as CLIPSegForImageSegmentation .*give that folder"),
        (str(folder / "dino"), "dino: .*it is a model of type 'grounding-dino', not 'clipseg'"),
    ]
    for source, reason in cases:
        with pytest.raises(CheckpointError, match=reason) as error:
            clipseg_provider(ProviderOptions(text_segmenter=source))
        assert "\n" not in str(error.value)
    shutil.copytree(folder / "clipseg", tmp_path / "partial")
    tensors = load_file(folder / "clipseg" / "model.safetensors")
    del tensors["decoder.film_add.bias"]
    save_file(tensors, tmp_path / "partial" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="partial: .*missing keys: decoder.film_add.bias"):
        clipseg_provider(ProviderOptions(text_segmenter=str(tmp_path / "partial")))
