"""Where the model itself looks for the objects of a caption: its cross-attention, over a few sampling steps.

Shapes: P phrases, M heads, Q pixels of a layer, T tokens; h x w the size of the latents.
"""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.color import rgb_to_luminance
from lcad.phrases import Phrase
from lcad.pipeline import LCADPipeline
from ldm.attention import attention_logits
from ldm.autoencoder import latent_stride
from ldm.images import to_tensor
from ldm.sampling import sample
from ldm.text_encoder import encode_captions

STEPS = 5  # of a conditional pass each: with the rest of finding masks less than six guided steps


@torch.no_grad()
def phrase_attention(
    pipeline: LCADPipeline, photo: Image.Image, caption: str, phrases: list[Phrase], steps: int = STEPS, seed: int = 0
) -> Tensor:
    """How much each place attends to each phrase's object word -> (P, h, w) float32 on the CPU, each of mean 1.

    The photo is sampled without guidance, in few steps. A layer's map is the mean over its heads and the object's
    tokens, over its own mean, so that no layer outweighs the others.
    """
    luminance = rgb_to_luminance(to_tensor(photo))
    size = pipeline.model_size(photo.height, photo.width)
    latent_size = tuple(side // latent_stride(pipeline.vae) for side in size)
    responses = pipeline.unet.luminance_responses(pipeline.luminance_features([luminance], size)[-1])
    text = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [caption])
    layer_sizes = _layer_sizes(latent_size)
    total = torch.zeros(len(phrases), *latent_size)

    def collect(_name: str, logits: Tensor) -> Tensor:  # (1, M, Q, T)
        attention = logits.float().softmax(-1)[0].mean(0).cpu()  # (Q, T)
        maps = torch.stack([attention[:, slice(*phrase.object_tokens)].mean(1) for phrase in phrases])  # (P, Q)
        maps = (maps / maps.mean(1, keepdim=True)).unflatten(1, layer_sizes[logits.shape[-2]])
        total.add_(F.interpolate(maps[None], latent_size, mode="bilinear")[0])
        return logits

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        with attention_logits(pipeline.unet, collect, rows=1):
            return pipeline.unet(x, t, text, responses).sample

    generator = torch.Generator().manual_seed(seed)
    x_T = torch.randn(1, pipeline.vae.config.latent_channels, *latent_size, generator=generator)
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)  # the pipeline's own keeps its steps
    sample(denoise, x_T.to(text), scheduler, steps, generator)
    return total / total.mean((1, 2), keepdim=True)


def _layer_sizes(latent_size: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Number of pixels -> (height, width) of every resolution of the UNet."""
    sizes, (height, width) = {}, latent_size
    while height * width not in sizes:
        sizes[height * width] = (height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    return sizes
