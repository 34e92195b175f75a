"""Where a model looks for the objects of a caption."""

from copy import deepcopy

import torch

from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.attention import phrase_attention
from lcad.text.phrases import find_phrases
from tests.conftest import random_photo

CAPTION = "the red cup, the blue dish"


def test_maps_take_one_pass_and_have_a_minimum_of_zero(tiny_pipeline):
    photo, phrases, passes = random_photo(0, 96, 40), find_phrases(CAPTION, tiny_pipeline.tokenizer), []
    hook = tiny_pipeline.unet.register_forward_hook(lambda *_: passes.append(1))
    maps = phrase_attention(tiny_pipeline, PreparedPhoto.of(photo), CAPTION, phrases)
    hook.remove()
    assert len(passes) == 1
    height, width = tiny_pipeline.model_size(photo.height, photo.width)
    assert len(maps) == 2 and maps.shape[1] * width == maps.shape[2] * height and maps.dtype == torch.float32
    assert (maps.amin((1, 2)) == 0).all() and (maps.amax((1, 2)) > 0).all() and maps.max() < 1
    assert torch.equal(maps, phrase_attention(tiny_pipeline, PreparedPhoto.of(photo), CAPTION, phrases)), (
        "the same seed, the same maps"
    )


def test_a_word_that_attends_to_all_places_alike_has_no_object(tiny_pipeline):
    pipeline = deepcopy(tiny_pipeline)
    for name, weight in pipeline.unet.named_parameters():
        if name.endswith("attn2.to_q.weight"):
            weight.data.zero_()
    phrases = find_phrases(CAPTION, pipeline.tokenizer)
    assert phrase_attention(pipeline, PreparedPhoto.of(random_photo(0)), CAPTION, phrases).max() < 1e-6
