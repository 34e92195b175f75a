"""Watching a sampling run from outside: its steps, the picture on the way, and an end before its end."""

import functools
import inspect
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page takes `Step` from here, and is to be up before torch is imported
    from PIL import Image
    from torch import Tensor

    from lcad.pipeline import LCADPipeline


class Cancelled(Exception):
    """The run was stopped by who asked for it."""


@dataclass(frozen=True)
class Step:
    """How far a run has come: `done` of `total`, in words, and what can be seen of it so far."""

    done: int
    total: int
    text: str
    picture: "Image.Image | None" = None


def streamed(work: Callable[[Callable[[object], None]], object], cancel: threading.Event) -> Iterator[object]:
    """What `work` gives to the function it is handed, as it comes, while it runs in a thread of its own.

    The function raises `Cancelled` in that thread once `cancel` is set, or when nobody takes the items any more. An
    exception of `work` is raised here, after the items before it.
    """
    items: queue.Queue = queue.Queue()
    end = object()

    def give(item: object) -> None:
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


@contextmanager
def watched_steps(pipeline: "LCADPipeline", on_step: "Callable[[int, Tensor], None]") -> Iterator[dict]:
    """Arguments for a call of the pipeline inside this context that tell `on_step` of each step and the latents.

    The latents (B, C, h, w) are the scheduler's estimate of the result where it makes one. `on_step` may raise.
    """
    if "callback_on_step_end" in inspect.signature(pipeline.__call__).parameters:

        def told(_pipe: object, step: int, _t: object, values: dict) -> dict:
            on_step(step + 1, values["latents"])
            return {}

        yield {"callback_on_step_end": told}
        return
    scheduler, count = pipeline.scheduler, 0
    plain = scheduler.step

    @functools.wraps(plain)
    def step(*args, **kwargs):
        nonlocal count
        result, count = plain(*args, **kwargs), count + 1
        estimate = getattr(result, "pred_original_sample", None)
        on_step(count, result.prev_sample if estimate is None else estimate)
        return result

    scheduler.step = step
    try:
        yield {}
    finally:
        del scheduler.step  # the method of its class is there again


def picture_of(pipeline: "LCADPipeline", latents: "Tensor", luminance: "Tensor") -> "Image.Image":
    """What latents (1, C, h, w) of a run show, with a photo's own L (1, H, W), to look at on the way."""
    import torch

    from lcad.io.images import to_image
    from lcad.models.guided_decoder import guided_decode
    from lcad.upsampling import recolor
    from ldm.autoencoder import latent_stride

    size = tuple(side * latent_stride(pipeline.vae) for side in latents.shape[-2:])
    features = pipeline.luminance_features([luminance], size)
    with torch.no_grad():
        decoded = guided_decode(pipeline.vae, latents.to(features[-1]), features).float().cpu()
    return to_image(recolor(luminance[None], (decoded / 2 + 0.5).clamp(0, 1))[0])
