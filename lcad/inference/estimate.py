"""How long a run will take, tried before it."""

import time
from pathlib import Path

from lcad.inference.plan import Settings
from lcad.io.images import read_image
from lcad.pipeline import LCADPipeline


def seconds_per_photo(pipeline: LCADPipeline, settings: Settings, photo: Path, caption: str) -> float:
    """An estimate from two short runs over one photo, at a batch size of 1."""
    seconds, long_side, tiled_side = [], settings.model_size, settings.tiled_size
    for steps in (1, 3):
        started = time.perf_counter()
        pipeline(read_image(photo), caption, None, steps, settings.guidance, long_side=long_side, tiled_side=tiled_side)
        seconds.append(time.perf_counter() - started)
    step = max(0.0, (seconds[1] - seconds[0]) / 2)
    return (seconds[1] + step * (settings.steps - 3)) * settings.samples
