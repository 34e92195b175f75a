"""Where the model itself looks for the objects of a caption: its cross-attention, over a few sampling steps.

Shapes: P phrases, M heads, Q pixels of a layer, T tokens; h x w the size of the latents.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.color import rgb_to_luminance
from lcad.masks.candidates import shrink
from lcad.phrases import Phrase
from ldm.attention import attention_logits, layer_sizes
from ldm.autoencoder import latent_stride
from ldm.images import to_tensor
from ldm.sampling import sample
from ldm.text_encoder import encode_captions

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

STEPS = (2, 5)  # the first 2 of 5: they see little of the colours, and cost one conditional pass each


@torch.no_grad()
def phrase_attention(
    pipeline: "LCADPipeline", photo: Image.Image, caption: str, phrases: list[Phrase], seed: int = 0
) -> Tensor:
    """Where each phrase's object is by its word's attention -> (P, h, w) in [0, 1], float32 on the CPU, minimum 0.

    The photo is sampled without guidance for a few steps. A layer's map is the sigmoid of its logits, which is what
    Algorithm 1 compares with masks (here of their mean over heads and the object's tokens). Layers of the up blocks
    are looked at, which have seen the whole photo, and of them those of most pixels. What all places have in common is
    taken off: a word that attends to all of them alike has no object.
    """
    size = pipeline.model_size(photo.height, photo.width)
    luminance = rgb_to_luminance(to_tensor(shrink(photo, max(size))))
    latent_size = tuple(side // latent_stride(pipeline.vae) for side in size)
    responses = pipeline.unet.luminance_responses(pipeline.luminance_features([luminance], size)[-1])
    text = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [caption])
    maps: dict[int, list[Tensor]] = defaultdict(list)  # Q -> (P, Q) of each layer and step

    def collect(name: str, logits: Tensor) -> Tensor:  # (1, M, Q, T)
        if not name.startswith("up_blocks"):
            return logits
        mean = logits[0].float().mean(0).cpu()  # (Q, T)
        words = torch.stack([mean[:, slice(*phrase.object_tokens)].mean(1) for phrase in phrases])  # (P, Q)
        maps[logits.shape[-2]].append(words.sigmoid())
        return logits

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        with attention_logits(pipeline.unet, collect, rows=1):
            return pipeline.unet(x, t, text, responses).sample

    generator = torch.Generator().manual_seed(seed)
    x_T = torch.randn(1, pipeline.vae.config.latent_channels, *latent_size, generator=generator)
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)  # the pipeline's own keeps its steps
    first, steps = STEPS
    sample(denoise, x_T.to(text), scheduler, steps, generator, progress=lambda timesteps: timesteps[:first])
    finest = max(maps)
    inside = torch.stack(maps[finest]).mean(0).unflatten(1, layer_sizes(latent_size)[finest])
    inside = F.interpolate(inside[None], latent_size, mode="bilinear")[0]
    return inside - inside.amin((1, 2), keepdim=True)
