"""Token embeddings of a new text encoder that start from given vectors, and stay as they are."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from lcad.config import LatentConfig, TextConfig, TrainerConfig
from lcad.training.latent_stage import LatentStage
from lcad.training.start import build_pipeline
from ldm.checkpoint import CheckpointError
from ldm.text_encoder import VOCABULARY_SIZE, build_text_encoder, start_token_embeddings

from .conftest import tiny_config


@pytest.fixture(scope="module")
def vectors():
    return torch.randn(VOCABULARY_SIZE, 8, generator=torch.Generator().manual_seed(3)).half() * torch.arange(8, 0, -1)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_embeddings_start_from_vectors(vectors, size):
    encoder = build_text_encoder(size, 1, 2, 8)
    start_token_embeddings(encoder, vectors)
    tokens = encoder.get_input_embeddings().weight
    positions = dict(encoder.named_parameters())["embeddings.position_embedding.weight"]
    assert tokens.std().item() == pytest.approx(0.02, rel=0.02)
    assert tokens.std().item() == pytest.approx(positions.std().item(), rel=0.2)
    expected = vectors[:200, :size].float()
    expected, found = (rows / rows.norm(dim=1, keepdim=True) for rows in (expected, tokens[:200]))
    assert torch.allclose(found @ found.T, expected @ expected.T, atol=1e-3), "the same angles between words"


def test_config_and_held_embeddings(vectors, tmp_path):
    path = tmp_path / "vectors.safetensors"
    save_file({"token_vectors": vectors.contiguous()}, path)
    text = TextConfig(8, 1, 2, 32, token_vectors=str(path))
    pipeline = build_pipeline(replace(tiny_config(), text=text))
    tokens = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.allclose(tokens / tokens.std(), vectors.float() / vectors.float().std(), atol=1e-3)
    trainable = ["text_encoder.*", "!text_encoder.*token_embedding*"]
    stage = LatentStage(pipeline, LatentConfig(trainable=trainable), TrainerConfig())
    held = [name for name, value in stage.named_parts().items() if not value.requires_grad and name.startswith("text")]
    assert held == ["text_encoder.embeddings.token_embedding.weight"] and stage.text_trained
    with pytest.raises(ValueError, match="'!text_encoder.wings' matches no parameter"):
        LatentStage(pipeline, LatentConfig(trainable=[*trainable, "!text_encoder.wings"]), TrainerConfig())


def test_files_that_do_not_fit(vectors, tmp_path):
    def build(tensors):
        save_file(tensors, tmp_path / "v.safetensors")
        return build_pipeline(replace(tiny_config(), text=TextConfig(8, 1, 2, 32, str(tmp_path / "v.safetensors"))))

    with pytest.raises(ValueError, match=r"got shape \(10, 8\); expected one row for each of 49408"):
        build({"token_vectors": vectors[:10].contiguous()})
    with pytest.raises(ValueError, match="v.safetensors: holds no tensor token_vectors"):
        build({"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no such weight file"):
        build_pipeline(replace(tiny_config(), text=TextConfig(8, 1, 2, 32, "nowhere.safetensors")))
