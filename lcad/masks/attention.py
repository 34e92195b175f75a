"""Where the model itself looks for the objects of a caption: its cross-attention, in pure noise.

Shapes: B rows, P phrases, M heads, Q pixels of a layer, T tokens; h x w the size of the latents.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lcad.io.prepared_photo import PreparedPhoto, luminance_features, text_embeddings
from lcad.text.phrases import Phrase
from lcad.text.wordings import wordings
from ldm.attention import LogitTransform, layer_sizes
from ldm.autoencoder import latent_stride

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

PLACE_SLOPE = 4.0  # of what a word of place adds to the log-odds, from the middle of a photo to its edge
_PLACES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}  # towards (x, y)


@torch.no_grad()
def phrase_attention(
    pipeline: "LCADPipeline", photo: PreparedPhoto, caption: str, phrases: list[Phrase], seed: int = 0
) -> Tensor:
    """Where each phrase's object is by its word's attention -> (P, h, w) in [0, 1], float32 on the CPU, minimum 0.

    The mean of what is seen in the photo and in its mirror image, in pure noise, with each of `lcad.text.wordings`, so
    that masks do not hang on the colours asked for: one conditional pass of two rows for each wording. A layer's map is
    the sigmoid of its logits, which is what Algorithm 1 compares with masks (here of their mean over heads and the
    object's tokens). Layers of the up blocks are looked at, which have seen the whole photo, and of them those of most
    pixels. What all places have in common is taken off: a word that attends to all of them alike has no object. What is
    left counts where the phrase's words of place say, see `place_prior`.
    """
    size = pipeline.model_size(photo.height, photo.width)
    stride = latent_stride(pipeline.vae)
    latent_size = size[0] // stride, size[1] // stride
    seen = [luminance_features(pipeline, [photo], size, mirrored)[-1] for mirrored in (False, True)]
    texts = wordings(caption, phrases, pipeline.tokenizer)
    worded = [wording for wording in texts for _ in seen]  # of each row
    text = text_embeddings(pipeline, [photo] * len(worded), [wording.caption for wording in worded])
    maps: dict[int, list[Tensor]] = defaultdict(list)  # Q -> (B, P, Q) of each layer

    def collect(name: str, logits: Tensor) -> Tensor:  # (B, M, Q, T)
        if name.startswith("up_blocks"):
            mean = logits.float().mean(1)  # (B, Q, T)
            words = [
                torch.stack([row[:, slice(*tokens)].mean(-1) for tokens in wording.object_tokens])
                for row, wording in zip(mean, worded, strict=True)
            ]
            maps[logits.shape[-2]].append(torch.stack(words).sigmoid().cpu())
        return logits

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(worded), pipeline.vae.config.latent_channels, *latent_size, generator=generator)
    last = torch.tensor(pipeline.scheduler.config.num_train_timesteps - 1, device=text.device)
    text = text.to(pipeline.unet.dtype)
    noise, once = noise.to(text), pipeline.unet.luminance_responses(torch.cat(seen).to(text))
    responses = {site: response.repeat(len(texts), 1, 1, 1) for site, response in once.items()}
    pipeline.unet(noise, last, text, responses, LogitTransform(collect, rows=len(worded)))
    finest = max(maps)
    rows = torch.unflatten(torch.stack(maps[finest]).mean(0), -1, layer_sizes(latent_size)[finest])  # (B, P, ...)
    both = (rows[::2] + rows[1::2].flip(-1)) / 2
    inside = F.interpolate(both.mean(0, keepdim=True), latent_size, mode="bilinear")[0]
    return (inside - inside.amin((1, 2), keepdim=True)) * torch.stack(
        [place_prior(phrase.position, latent_size) for phrase in phrases]
    )


def place_prior(position: str | None, size: Sequence[int]) -> Tensor:
    """How likely each place is the object's by words of place such as "bottom left" -> (h, w) in (0, 1); 1 without any.

    0.5 for each word in the middle of the photo; for "middle" half-way from there to the left and right edges.
    """
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    prior = torch.ones(*size)
    for word in (position or "").split():
        if word in _PLACES:
            across, down = _PLACES[word]
            prior = prior * (PLACE_SLOPE * (across * x + down * y)).sigmoid()
        elif word == "middle":
            prior = prior * (PLACE_SLOPE * (1 - 2 * x.abs())).sigmoid()
    return prior
