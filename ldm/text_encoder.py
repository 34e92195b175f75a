"""CLIP's text encoder (transformers) with CLIP's BPE vocabulary taken from open_clip_torch: no download.

Shapes: B captions, T = 77 tokens (start, text, end, padded with the end token 49407), D hidden size.
"""

import gzip
import importlib.resources
import warnings

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm.devices import execution_device

MAX_TOKENS = 77
VOCABULARY_SIZE = 49408


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's BPE tokenizer from the merges file that open_clip_torch ships."""
    packed = importlib.resources.files("open_clip") / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    letters = _byte_letters()
    words = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    vocabulary = {word: index for index, word in enumerate(words + ["<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges], model_max_length=MAX_TOKENS
    )


def _byte_letters() -> list[str]:
    """The 256 printable letters byte-level BPE writes bytes with, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def build_text_encoder(hidden_size: int, layers: int, heads: int, intermediate_size: int) -> CLIPTextModel:
    """A CLIP text encoder with random weights; SD 1.x is (768, 12, 12, 3072)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )


@torch.no_grad()
def start_token_embeddings(text_encoder: CLIPTextModel, vectors: Tensor, seed: int = 0) -> None:
    """Token embeddings from vectors (tokens, V), one for each token id, whose components come in order of importance.

    A smaller encoder gets the first components, a larger one all of them, turned by a random orthogonal map. They are
    scaled to the deviation the embeddings had, which at random is that of the position embeddings (0.02).

    Raises:
        ValueError: not one vector for each token.
    """
    weight = text_encoder.get_input_embeddings().weight  # (tokens, D)
    if vectors.dim() != 2 or len(vectors) != len(weight):
        raise ValueError(f"token vectors: got shape {tuple(vectors.shape)}; expected one row for each of {len(weight)}")
    vectors, size = vectors.float(), weight.shape[1]
    if size > vectors.shape[1]:
        random = torch.randn(size, vectors.shape[1], generator=torch.Generator().manual_seed(seed))
        vectors = vectors @ torch.linalg.qr(random).Q.T  # (tokens, D)
    vectors = vectors[:, :size]
    weight.copy_(vectors * (weight.std() / vectors.std()))


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Captions -> token ids (B, 77), int64. A longer caption is cut at 77 tokens with a warning."""
    for caption in captions:
        offsets = tokenizer(caption, truncation=False, verbose=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) > MAX_TOKENS:
            lost = caption[offsets[MAX_TOKENS - 1][0] :]
            lost = lost if len(lost) <= 300 else f"{lost[:300]}..."
            warnings.warn(
                f"caption of {len(offsets)} tokens cut to the {MAX_TOKENS} that CLIP reads; lost: {lost!r}; shorten it",
                stacklevel=2,
            )
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return tokens["input_ids"]


def encode_text(text_encoder: CLIPTextModel, token_ids: Tensor) -> Tensor:
    """Token ids (B, 77) -> last hidden states (B, 77, D). No padding mask, as in Stable Diffusion."""
    return text_encoder(input_ids=token_ids.to(execution_device(text_encoder))).last_hidden_state


@torch.no_grad()
def encode_captions(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, captions: list[str]) -> Tensor:
    """Captions -> (B, 77, D), without gradients."""
    return encode_text(text_encoder, tokenize(tokenizer, captions))
