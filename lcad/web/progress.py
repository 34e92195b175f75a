"""Watching a sampling run from outside: its steps, the picture on the way, and an end before its end."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # the page takes `Step` from here, and is to be up before torch is imported
    from PIL import Image
    from torch import Tensor

    from lcad.io.prepared_photo import PreparedPhoto
    from lcad.pipeline import LCADPipeline

Item = TypeVar("Item")


class Cancelled(Exception):
    """The run was stopped by who asked for it."""


@dataclass(frozen=True)
class Step:
    """How far a run has come: `done` of `total`, in words, and what can be seen of it so far."""

    done: int
    total: int
    text: str
    picture: "Image.Image | None" = None


def streamed(work: Callable[[Callable[[Item], None]], object], cancel: threading.Event) -> Iterator[Item]:
    """What `work` gives to the function it is handed, as it comes, while it runs in a thread of its own.

    The function raises `Cancelled` in that thread once `cancel` is set, or when nobody takes the items any more. An
    exception of `work` is raised here, after the items before it.
    """
    items: queue.Queue = queue.Queue()
    end = object()

    def give(item: Item) -> None:
        if cancel.is_set():
            raise Cancelled
        items.put(item)

    def run() -> None:
        try:
            work(give)
            items.put((end, None))
        except BaseException as error:  # raised again where the items are taken
            items.put((end, error))

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        while True:
            item = items.get()
            if isinstance(item, tuple) and item[0] is end:
                if item[1] is not None:
                    raise item[1]
                return
            yield item
    finally:
        if worker.is_alive():
            cancel.set()
            worker.join()


def picture_of(
    pipeline: "LCADPipeline", latents: "Tensor", photo: "PreparedPhoto", luminance: "Tensor"
) -> "Image.Image":
    """What latents (1, C, h, w) of a run show, with a photo's own L (1, h, w) of any size, to look at on the way.

    A picture that is not finite is no reason to end the run: such values are shown as black.
    """
    import torch

    from lcad.io.images import to_image
    from lcad.io.prepared_photo import luminance_features
    from lcad.models.guided_decoder import decode_with_luminance
    from lcad.upsampling import transfer_chroma
    from ldm.autoencoder import latent_stride

    vae, (height, width) = pipeline.vae, latents.shape[-2:]
    features = luminance_features(pipeline, [photo], (height * latent_stride(vae), width * latent_stride(vae)))
    with torch.no_grad():
        guides = [feature.to(vae.dtype) for feature in features]
        decoded = decode_with_luminance(vae, latents.to(vae.dtype), guides).float().cpu()
    return to_image(transfer_chroma(luminance[None], (decoded / 2 + 0.5).nan_to_num(0).clamp(0, 1))[0])
