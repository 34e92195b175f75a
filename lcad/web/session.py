"""One visitor's photo: from the file to the download, all that the page does and nothing of how it looks.

What decides a result is the library's: candidate k of seed s is what scripts/sample.py makes with --seed s+k.

Shapes: H x W the photo's size, h x w that of its small copy, `SIDE` on the long side.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lcad.inference.adherence import instance_report
from lcad.inference.finish import SHOWN_SIDE, Loaded, Result, write
from lcad.inference.output import OutputFolder
from lcad.inference.plan import Job, Settings, result_names
from lcad.io.images import shrink, to_image
from lcad.io.photos import FORMATS, Photo, notes_on_writing
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import FoundMasks
from lcad.recoloring.dyeing import Dyes
from lcad.recoloring.exact_colors import color_rows, find_dyes, parse_color, to_hex
from lcad.recoloring.looks import apply_look, check_look
from lcad.text.captions import plain_line
from lcad.text.phrases import find_phrases
from lcad.text.reading import not_understood
from lcad.upsampling import transfer_chroma, transfer_chroma_strips
from lcad.web.candidates import Candidate, Look, decoded_picture
from lcad.web.phrase_masks import PhraseMasks
from lcad.web.pictures import fitted, grey_picture, save_shown
from lcad.web.progress import Step, picture_of, streamed
from lcad.web.studio import SIDE, Studio

PICTURE_SECONDS = 2.0  # between two pictures of a run on its way
PICTURE_SIDE = 320  # pixels, of those
LONGEST_CAPTION = 2000  # characters; CLIP reads about 300
OWN = "own"  # a format: that of the photo's file where it is one that is written, else PNG


class PhotoSession:
    """A photo, its caption with the regions of its phrases, candidates, and the one that is kept.

    Methods raise ValueError (ImageError for files) with one line for whatever a visitor can cause.

    Attributes:
        masks: the caption's phrases and their regions.
        look: may be changed at any time by `set_look` and `set_color`.
        notes: on what `write` could not keep.
    """

    def __init__(self, studio: Studio):
        self.studio, self.folder, self.cancel = studio, studio.new_folder(), threading.Event()
        self._reading = threading.Lock()
        self.photo: Photo | None = None
        self.small = Image.new("L", (1, 1))
        self.name, self._shown = "", 0
        self._before: Path | None = None  # of the photo, once it was shown
        self.notes: list[str] = []
        self.candidates: list[Candidate] = []
        self._making = threading.RLock()  # events of a visitor run at the same time
        self._full: tuple[np.ndarray, Candidate, Look, int] | None = None  # values, and what they were made from
        self._forget("")

    def open(self, path: Path, name: str | None = None) -> list[str]:
        """Take a photo in place of the one before -> notes on how its file was understood.

        Args:
            name: of the file on the visitor's side.

        Raises:
            ImageError: see `Studio.read_photo`; the photo before stays.
        """
        name = plain_line(Path(name or path).name)
        photo, sha256 = self.studio.read_photo(path, name)
        self.photo, self.name, self._sha256, self._before = photo, name, sha256, None
        self.prepared = PreparedPhoto.of(photo)
        self.small = shrink(self.prepared.image, SIDE)
        self._small_luminance = fitted(self.luminance, SIDE)
        self._forget("")
        self.look = Look()
        return photo.notes

    @property
    def luminance(self) -> Tensor:
        """L (1, H, W) of the photo."""
        return self.prepared.luminance

    def read_caption(self, caption: str) -> list[str]:
        """Find the caption's phrases and their regions -> notes; what was clicked and painted before is lost.

        Raises:
            ValueError: no photo yet, or a caption that is too long.
        """
        self.need_photo()
        caption = plain_line(caption or "").strip()
        if len(caption) > LONGEST_CAPTION:
            raise ValueError(f"the caption has {len(caption):,} characters; at most {LONGEST_CAPTION:,} are read")
        with self._reading:  # a second call with the same caption waits for what the first finds
            return [] if caption == self.caption else self._read(caption)

    def _read(self, caption: str) -> list[str]:
        phrases, found = [], None
        if caption:
            phrases = find_phrases(caption, self.studio.pipeline.tokenizer)
            with self.studio.turn:
                found = self.studio.find_masks(Path(self.name), self.prepared, caption)
        self._forget(caption)
        self.look.colors = {}
        self.masks = PhraseMasks(phrases, found, self.studio.proposals(self.small, [p.object for p in phrases]))
        return not_understood(caption) if found is None else found.notes

    def set_color(self, number: int | None, color: str | None) -> None:
        """Ask for an exact colour of a phrase's region, "#8b1a1a" or "pale blue"; None: any that its words allow.

        Raises:
            ValueError: no such phrase, one without a region, or an unknown colour.
        """
        number, value = self.masks.check(number), parse_color(color) if color else None
        if value is None:
            self.look.colors.pop(number, None)
        elif self.masks.has_region(number):
            self.look.colors[number] = value
        else:
            raise ValueError(f"{self.masks.phrases[number].text!r} has no region to colour; click or paint one first")

    def set_look(self, saturation: float, warmth: float) -> None:
        """Raises ValueError, see `lcad.recoloring.looks.check_look`."""
        check_look(saturation, warmth)
        self.look.saturation, self.look.warmth = saturation, warmth

    def overlay(self) -> Image.Image:
        """The grey photo with the outlines of the phrases' regions, `SIDE` on its long side."""
        size = self.overlay_size
        return self.masks.drawn_on(self.small.convert("L").resize(size, Image.Resampling.BICUBIC))

    @property
    def overlay_size(self) -> tuple[int, int]:
        """(width, height) of `overlay`."""
        self.need_photo()
        width, height = (max(1, round(side * SIDE / max(self.small.size))) for side in self.small.size)
        return width, height

    def colorize(
        self, number: int = 4, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> Iterator[Step | Candidate]:
        """Make candidates one after another -> steps on the way, and each candidate when it is done.

        Raises:
            ValueError: no photo, values that are not allowed, or a result that is not finite. Cancelled: see `stop`.
        """
        self.need_photo()
        checked = self.studio.settings(steps, guidance, seed=int(seed), samples=int(number))
        every = [replace(checked, seed=checked.seed + k, samples=1) for k in range(checked.samples)]
        made_from = self.caption, self.masks.found()
        self.cancel.clear()
        self.candidates, self.chosen = [], 0

        def work(give: Callable[[Step | Candidate], None]) -> None:
            for settings in every:
                with self.studio.turn:
                    decoded = self._sample(settings, *made_from, len(every), give)
                self.candidates.append(Candidate(decoded, settings, *made_from))
                give(self.candidates[-1])

        yield from streamed(work, self.cancel)

    def stop(self) -> None:
        """End a run at its next step; candidates that are done stay."""
        self.cancel.set()

    def keep(self, number: int) -> None:
        """Choose the candidate that is shown and written."""
        if not 0 <= number < len(self.candidates):
            raise ValueError("there is no such candidate; colorize first")
        self.chosen = number

    def thumbnail(self, number: int, side: int = SHOWN_SIDE) -> Image.Image:
        """A candidate as it would be written, `side` at most."""
        candidate = self.candidates[number]
        rgb = transfer_chroma(fitted(self._small_luminance, side)[None], candidate.decoded[None])[0]
        dyes = self._dyes(candidate)
        rgb = apply_look(rgb if dyes is None else dyes.apply(rgb), self.look.saturation, self.look.warmth)
        return to_image(rgb)

    def before(self) -> Image.Image:
        """The photo's luminance at full size, of 8 bit grey."""
        self.need_photo()
        return grey_picture(self.luminance)

    def values(self) -> np.ndarray:
        """The kept candidate (H, W, 3) at full size, in the photo's depth and profile."""
        with self._making:
            candidate, look = self._kept(), replace(self.look, colors=dict(self.look.colors))
            made_from = candidate, look, self.masks.changes if look.colors else 0
            if self._full is None or self._full[1:] != made_from:
                size = self.luminance.shape[-2], self.luminance.shape[-1]
                dyes = self._dyes(candidate)
                strips = transfer_chroma_strips(self.luminance[None], candidate.decoded[None])
                parts = ((rows, rgb[0] if dyes is None else dyes.apply(rgb[0], rows, size)) for rows, rgb in strips)
                looked = ((rows, apply_look(rgb, look.saturation, look.warmth)) for rows, rgb in parts)
                self._full = self.need_photo().encoded_strips(size, looked), *made_from
            return self._full[0]

    def after(self) -> Image.Image:
        """The kept candidate at full size, as a viewer shows it."""
        return self.need_photo().shown(self.values())

    def pictures(self, most: int) -> tuple[Path, Path]:
        """Files of the grey photo and of the kept candidate to look at, at full size or with `most` pixels at most."""
        place = self.folder / "shown"
        with self._making:
            if self._before is None:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                save_shown(self.before(), place / "before.jpg", most)
                self._before = place / "before.jpg"
            self._shown += 1
            after = place / f"after_{self._shown}.jpg"
            save_shown(self.after(), after, most)
            (place / f"after_{self._shown - 2}.jpg").unlink(missing_ok=True)  # the last may be on its way
            return self._before, after

    def report(self) -> list[dict]:
        """For each phrase with a region what was asked and what was obtained, see `instance_report`; where an exact
        colour was asked also `color`, `delta_e` and `limited_by_luminance`, see `color_rows`."""
        candidate = self._kept()
        found = candidate.found or self.masks.found()
        if found is None:
            return []
        picture = self.thumbnail(self.chosen)
        rows, numbers = instance_report(picture, found.instances), self._dyed()
        dyes = self._dyes(candidate)
        if dyes is not None:
            rgb = transfer_chroma(self._small_luminance[None], candidate.decoded[None])[0]
            colors = [self.look.colors[k] for k in numbers]
            exact = dict(zip(numbers, color_rows(dyes.apply(rgb), dyes.edges, colors), strict=True))
            for row, phrase in zip(rows, found.instances.phrases, strict=True):
                own = exact.get(self.masks.phrases.index(phrase)) if phrase in self.masks.phrases else None
                if own is not None:
                    row |= {"color": own["asked"], "delta_e": own["delta_e"]}
                    row["limited_by_luminance"] = own["limited_by_luminance"]
        return rows

    def write(self, suffix: str = OWN) -> list[Path]:
        """The kept candidate as a file and its record, in the session's folder, and in the studio's `keep` if asked.

        Args:
            suffix: a row of `lcad.io.photos.FORMATS`, or `OWN`.

        Raises:
            ValueError: nothing to write, or an unknown format. OSError: the disk, or more pixels than the format holds.
        """
        candidate, photo, name = self._kept(), self.need_photo(), Path(self.name)
        if suffix == OWN:
            suffix = name.suffix.lower() if name.suffix.lower() in FORMATS else ".png"
        if suffix not in FORMATS:
            raise ValueError(f"unknown format {suffix!r}; allowed: {OWN}, {', '.join(FORMATS)}")
        shutil.rmtree(self.folder / "result", ignore_errors=True)
        job = Job(name, candidate.caption, f"{result_names([name])[name]}_colorized")
        output = OutputFolder(self.folder / "result", suffix, overwrite=True)
        paths = output.results(job)
        record = self._record(job, candidate, paths)
        item = Loaded(job, photo, self.prepared, self.small, candidate.found, record)
        write(Result(item, [self.values()], [], record), output)
        self.notes = notes_on_writing(photo, suffix)
        if suffix in (".jpg", ".jpeg"):
            self.notes.append("a JPEG alters the luminance a little; PNG and TIFF keep it exactly")
        paths.append(output.record(job))
        if self.studio.keep is not None:
            place = self.studio.keep / f"{time.strftime('%Y%m%d_%H%M%S')}_{self.folder.name}"
            shutil.copytree(self.folder / "result", place, dirs_exist_ok=True)
        return paths

    def close(self) -> None:
        """Stop what the session is doing, and remove its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sample(
        self,
        settings: Settings,
        caption: str,
        found: FoundMasks | None,
        many: int,
        give: Callable[[Step | Candidate], None],
    ) -> Tensor:
        """One candidate's decoded picture (3, h', w') in [0, 1]; each step is given, now and then with a picture."""
        pipeline, shown, k = self.studio.pipeline, time.monotonic(), len(self.candidates)
        small = fitted(self._small_luminance, PICTURE_SIDE)

        def tell(step: int, of: int, denoised: Tensor | None = None) -> None:
            nonlocal shown
            picture = None
            if denoised is not None and time.monotonic() - shown > PICTURE_SECONDS:
                picture, shown = picture_of(pipeline, denoised, self.prepared, small), time.monotonic()
            text = f"Candidate {k + 1} of {many}, step {step} of {of}"
            give(Step(k * of + step, many * of, text, picture))

        give(Step(k * settings.steps, many * settings.steps, f"Candidate {k + 1} of {many}"))
        return decoded_picture(pipeline, self.prepared, settings, caption, found, tell)

    def _dyed(self) -> list[int]:
        """The phrases with an exact colour whose region was not taken away since."""
        return [k for k in sorted(self.look.colors) if self.masks.has_region(k)]

    def _dyes(self, candidate: Candidate) -> Dyes | None:
        """What gives the objects their exact colours; None: none is asked for."""
        numbers = self._dyed()
        if not numbers:
            return None
        rgb = transfer_chroma(self._small_luminance[None], candidate.decoded[None])[0]
        return find_dyes(rgb, self.masks.stacked(numbers), [self.look.colors[k] for k in numbers])

    def _record(self, job: Job, candidate: Candidate, paths: list[Path]) -> dict:
        """As the command line's, with what was changed afterwards; names of files here are without their folders."""
        record = self.studio.recorder.record(job, candidate.found, self._sha256, paths)
        look = {"saturation": self.look.saturation, "warmth": self.look.warmth}
        colors = [f"{self.masks.phrases[k].text}={to_hex(self.look.colors[k])}" for k in self._dyed()]
        return record | {
            "settings": asdict(candidate.settings) | look,
            "colors": colors or None,
            "model": Path(record["model"]).name,
            "size": [self.luminance.shape[-1], self.luminance.shape[-2]],
            "instances": [self.report()],
        }

    def _forget(self, caption: str) -> None:
        """What belonged to another photo or caption."""
        self.caption, self.candidates, self.chosen = caption, [], 0
        self.masks = PhraseMasks([], None, self.studio.proposals(self.small, []))
        self.look, self._full = getattr(self, "look", Look()), None

    def need_photo(self) -> Photo:
        """Raises ValueError: there is none yet."""
        if self.photo is None:
            raise ValueError("there is no photo yet; drop one first")
        return self.photo

    def _kept(self) -> Candidate:
        self.need_photo()
        if not self.candidates:
            raise ValueError("nothing is colorized yet")
        return self.candidates[self.chosen]
