"""What all visitors of the page share: the model, what finds masks, the limits, a folder that goes with the server."""

import shutil
import tempfile
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcad.defaults import SAMPLING_DTYPES

if TYPE_CHECKING:  # torch and diffusers take seconds to import: the page is to be up before they are
    from collections.abc import Callable

    from PIL import Image

    from lcad.inference.plan import Settings
    from lcad.inference.records import Recorder
    from lcad.io.photos import Photo
    from lcad.masks.from_text import MaskFinder
    from lcad.masks.types import Provider, Regions
    from lcad.pipeline import LCADPipeline

SIDE = 1024  # pixels, long side of the copy of a photo that is shown, clicked and painted on


@dataclass(frozen=True)
class Limits:
    """What strangers may ask of the server.

    Attributes:
        megabytes: of one upload.
        megapixels: of one photo.
        photos: of one batch.
        waiting: in the queue; more are turned away.
        candidates: of one photo at a time.
        steps: of sampling.
    """

    megabytes: int = 200
    megapixels: int = 100
    photos: int = 200
    waiting: int = 16
    candidates: int = 8
    steps: int = 200

    def check(self, photo: Path, name: str) -> None:
        """Raises ImageError: a file or a photo that is too large; see also `lcad.io.images.read_size`."""
        from lcad.io.images import ImageError, read_size

        megabytes = photo.stat().st_size / 1e6
        if megabytes > self.megabytes:
            raise ImageError(f"{name}: {megabytes:,.0f} MB; at most {self.megabytes:,} MB are taken here")
        try:
            width, height = read_size(photo)
        except ImageError as error:
            raise ImageError(str(error).replace(str(photo), name)) from error
        if width * height > self.megapixels * 1e6:
            raise ImageError(
                f"{name}: {width}x{height} pixels; at most {self.megapixels} megapixels are taken here, larger "
                "photos by scripts/sample.py"
            )


class Studio:
    """One model for all sessions; it is loaded when it is first needed, and colorizes one thing at a time.

    Args:
        model: checkpoint folder or hub id.
        mask_weights: fields of `lcad.masks.types.ProviderOptions`; none: regions of the luminance.
        keep: folder where results are kept; None: nothing is kept.
        fast: in 4 steps, with the model's LCM-LoRA.

    Attributes:
        folder: for files of sessions; removed by `close`.
        turn: held by whoever samples: a scheduler holds the state of one run.
    """

    def __init__(
        self,
        model: str | Path,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        device: str = "auto",
        dtype: str = SAMPLING_DTYPES[0],
        keep: Path | None = None,
        mask_weights: dict[str, Any] | None = None,
        fast: bool = False,
    ):
        self.model, self.limits, self.device, self.dtype, self.keep = model, limits, device, dtype, keep
        self.fast = fast
        self._mask_weights = mask_weights or {}
        self.folder = Path(tempfile.mkdtemp(prefix="lcad_page_"))
        self.turn = threading.Lock()
        self._loading = threading.Lock()
        self._pipeline: LCADPipeline | None = None

    @property
    def pipeline(self) -> "LCADPipeline":
        """Raises CheckpointError, see `LCADPipeline.from_pretrained`."""
        from lcad.pipeline import LCADPipeline
        from ldm.devices import choose_device, choose_dtype

        with self._loading:
            if self._pipeline is None:
                device = choose_device(self.device)
                dtype = choose_dtype(self.dtype, device)
                pipeline = LCADPipeline.from_pretrained(self.model, torch_dtype=dtype).to(device)
                pipeline.set_progress_bar_config(disable=True)
                self._pipeline = pipeline.with_lcm_lora() if self.fast else pipeline
        return self._pipeline

    @cached_property
    def provider(self) -> "Provider":
        """Candidate regions of a photo: those that masks from words are chosen among."""
        from lcad.masks.providers import best_provider
        from lcad.masks.types import ProviderOptions

        return best_provider(ProviderOptions(**self._mask_weights, device=str(self.pipeline.device)))

    def proposals(self, photo: "Image.Image", objects: list[str]) -> "Callable[[], Regions]":
        """What proposes the regions of a photo when they are first needed; a session's memory does not hang on it."""
        return lambda: self.provider(photo, objects)

    @cached_property
    def find_masks(self) -> "MaskFinder":
        from lcad.masks.from_text import build_region_finder

        return build_region_finder(self.pipeline.with_localizer(), self.provider)

    @cached_property
    def recorder(self) -> "Recorder":
        """Of records, with the model's own settings; the weights are hashed once."""
        from lcad.inference.records import Recorder

        return Recorder(self.pipeline, self.settings())

    def warm_up(self) -> None:
        """Load and import everything that the first photo would otherwise wait for.

        Raises CheckpointError, see `LCADPipeline.from_pretrained`.
        """
        import lcad.web.batch  # noqa: F401
        import lcad.web.session  # noqa: F401

        self.find_masks, self.recorder  # noqa: B018

    def settings(self, steps: int | None = None, guidance: float | None = None, **others: Any) -> "Settings":
        """As `lcad.inference.plan.settings_of`, of this model, within the limits.

        Raises:
            ValueError: steps, guidance or samples that are not allowed.
        """
        from lcad.inference.plan import settings_of

        made = settings_of(self.pipeline, steps, guidance, **others)
        for name, value, most in (
            ("steps", made.steps, self.limits.steps),
            ("candidates", made.samples, self.limits.candidates),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"got {value} {name}; allowed are 1 to {most}")
        if not 0 <= made.guidance <= 100:
            raise ValueError(f"got a guidance of {made.guidance}; allowed is 0 to 100")
        if not 0 <= made.seed < 2**63:
            raise ValueError(f"got the seed {made.seed}; allowed is 0 to {2**63 - 1}")
        return made

    def read_photo(self, path: Path, name: str) -> "tuple[Photo, str]":
        """A photo of somebody else's choice, and the SHA-256 of its file; errors call it `name`, not by its path.

        Raises:
            ImageError: see `lcad.io.photos.read_photo`, or larger than the limits.
        """
        from lcad.inference.records import file_hash
        from lcad.io.images import ImageError
        from lcad.io.photos import read_photo

        try:
            self.limits.check(path, name)
            return read_photo(path), file_hash(path)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), name)) from error
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error.strerror})") from error

    def new_folder(self) -> Path:
        """An empty folder of a session's own."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def close(self) -> None:
        """Remove all files of all sessions."""
        shutil.rmtree(self.folder, ignore_errors=True)
