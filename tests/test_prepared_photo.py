"""What is made of a photo is made once: luminance, its encoder's features, the encoded caption."""

import numpy as np
import pytest
import torch

from lcad.inference.batch_runner import FolderRun
from lcad.inference.output import OutputFolder
from lcad.inference.plan import Job, Settings
from lcad.io.images import shrink
from lcad.io.photos import Photo
from lcad.io.prepared_photo import PreparedPhoto, luminance_features, text_embeddings
from lcad.masks.sources import build_finder
from lcad.text.reading import read_caption
from tests.conftest import random_photo

CAPTION = "a red cup and a blue hat"


@pytest.fixture
def calls(tiny_pipeline):
    """The rows that each of the model's encoders is given, call by call."""
    seen: dict[str, list[torch.Tensor]] = {"luminance": [], "text": []}
    text, luminance = tiny_pipeline.text_encoder, tiny_pipeline.luminance_encoder
    hooks = [
        luminance.register_forward_pre_hook(lambda _, given: seen["luminance"].append(given[0])),
        text.register_forward_pre_hook(lambda *given: seen["text"].append(given[2]["input_ids"]), with_kwargs=True),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def test_a_call_with_found_masks_encodes_photo_and_caption_once(tiny_pipeline, calls):
    photos = [random_photo(0), random_photo(1)]
    read_caption.cache_clear()
    tiny_pipeline(photos, [CAPTION, "a green tree"], "auto", num_inference_steps=1, guidance_scale=3)
    assert read_caption.cache_info().misses == 2, "each caption is parsed once"
    rows = torch.cat(calls["luminance"])
    assert len(rows) == 4, "each photo, and each mirror image, which is a picture of its own"
    assert len(torch.unique(rows, dim=0)) == 4
    texts = torch.cat(calls["text"])
    assert len(texts) == len(torch.unique(texts, dim=0)) == 7, "two captions, two wordings of each, and the empty one"


def test_samples_of_a_run_share_them(tiny_pipeline, calls, tmp_path):
    random_photo(0).save(tmp_path / "a.png")
    settings = Settings(steps=1, samples=3, guidance=1)
    finder = build_finder("regions", tiny_pipeline)
    run = FolderRun(tiny_pipeline, settings, OutputFolder(tmp_path / "out", samples=3), finder)
    assert run.run([Job(tmp_path / "a.png", CAPTION, "a")]).written == 1
    assert len(torch.cat(calls["luminance"])) == 2
    assert len(torch.cat(calls["text"])) == 3, "the caption and its two wordings, for all samples"


def test_new_photos_are_encoded_together_and_as_alone(tiny_pipeline, calls):
    photos = [PreparedPhoto.of(random_photo(seed)) for seed in range(3)]
    (first,) = luminance_features(tiny_pipeline, photos[:1], (32, 40))[-1:]
    several = luminance_features(tiny_pipeline, [*photos, photos[1]], (32, 40))[-1]
    assert [len(rows) for rows in calls["luminance"]] == [1, 2]
    torch.testing.assert_close(several[:1], first, rtol=0, atol=0)
    torch.testing.assert_close(several[1], several[3], rtol=0, atol=0)
    mirrored = luminance_features(tiny_pipeline, photos[:1], (32, 40), mirrored=True)[-1]
    assert not torch.allclose(mirrored, first, atol=1e-3)
    text = text_embeddings(tiny_pipeline, photos[:2], [CAPTION, "a green tree"])
    again = text_embeddings(tiny_pipeline, photos[1::-1], ["a green tree", CAPTION])
    assert torch.equal(text, again.flip(0)) and len(calls["text"]) == 1


def test_what_was_made_is_let_go_of():
    photo = PreparedPhoto.of(random_photo(0, 2000, 30))
    assert photo.luminance.shape == (1, 30, 2000) and photo.image.size == (1024, 15)
    assert photo.luminance is photo.luminance and photo.image is photo.image
    kept = photo.luminance
    photo.release()
    assert photo.luminance is not kept and torch.equal(photo.luminance, kept)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("opaque", [True, False])
def test_a_small_copy_made_in_strips_is_that_of_the_whole(kind, opaque, monkeypatch):
    monkeypatch.setattr("lcad.io.color_profiles.STRIP", 300)
    values = np.asarray(random_photo(0, 97, 83)).astype(kind) * kind(np.iinfo(kind).max // 255)
    photo = Photo(values, None if opaque else values[..., 0])
    for side in (48, 41, 13):  # odd heights: no rows lie just between two
        whole, made = shrink(photo.preview(), side), photo.preview(side)
        assert made.size == whole.size and made.mode == "RGB"
        assert np.abs(np.asarray(made, int) - np.asarray(whole, int)).max() <= 1
    assert photo.preview(97).tobytes() == photo.preview().tobytes()
