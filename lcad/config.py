"""The typed configs of both training stages: every key, its type and its meaning.

A YAML file and `key=value` overrides are merged into these; an unknown key, a wrong type or a value that is not
allowed (`ALLOWED`) is an error that names the key's path.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line with the key's path."""


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, without `low` if that is `above`."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"it must be {'above' if self.above else 'from'} {self.low} to {self.high}"
        return f"it must be above {self.low}" if self.above else f"it must be {self.low} or more"


NATURAL, COUNT, NUMBER, POSITIVE, SHARE = Range(0), Range(1), Range(0.0), Range(0, above=True), Range(0, 1)

ALLOWED: dict[str, dict[str, Range | tuple[str, ...]]] = {
    "": {"save_dtype": ("float32", "float16", "bfloat16")},
    "model": {"image_size": COUNT, "hint_scale": ("unit", "release")},
    "model.autoencoder": {
        "block_out_channels": COUNT,
        "layers_per_block": COUNT,
        "latent_channels": COUNT,
        "norm_num_groups": COUNT,
        "scaling_factor": POSITIVE,
    },
    "model.unet": {
        "block_out_channels": COUNT,
        "layers_per_block": COUNT,
        "attention_heads": COUNT,
        "norm_num_groups": COUNT,
        "sites": ("none", "conv_in", "down_blocks"),
    },
    "model.text": dict.fromkeys(("hidden_size", "layers", "heads", "intermediate_size"), COUNT),
    "data": {
        "max_photos": COUNT,
        "repeat": COUNT,
        "validation": NATURAL,
        "crop": ("random", "center"),
        "zoom": Range(1),
        "scarce": SHARE,
        "drop": SHARE,
        "workers": NATURAL,
        "crops": NATURAL,
    },
    "trainer": dict.fromkeys(
        ("batch_size", "accumulate", "epochs", "steps", "devices", "log_every", "validate_every", "checkpoint_every"),
        COUNT,
    )
    | {
        "hours": POSITIVE,
        "ema": SHARE,
        "gradient_clip": POSITIVE,
        "seed": Range(0, 2**32 - 1),
        "logger": ("csv", "tensorboard"),
        "validation_batches": NATURAL,
    },
    "pixel": {
        "train": ("luminance", "autoencoder"),
        "artifact_map": ("paper", "ldl", "none"),
        "discriminator_channels": COUNT,
        "perceptual_net": ("vgg", "alex", "squeeze"),
        "adversarial_start": NATURAL,
    }
    | dict.fromkeys(("learning_rate", "final_learning_rate", "artifact_floor"), NUMBER)
    | dict.fromkeys(("chroma_weight", "adversarial", "perceptual", "kl"), NUMBER),
    "latent": {
        "sites": ("none", "conv_in", "down_blocks"),
        "prediction": ("epsilon", "v_prediction"),
        "timestep_shift": POSITIVE,
        "refined": SHARE,
        "grounding": NUMBER,
        "teacher_weight": NUMBER,
        "learning_rate": NUMBER,
        "final_learning_rate": NUMBER,
        "warmup_steps": NATURAL,
        "sample_steps": Range(1, 1000),
        "inference_steps": Range(1, 1000),
        "guidance": NUMBER,
    },
}
ALLOWED["data.more"] = {key: ALLOWED["data"][key] for key in ("max_photos", "repeat")}
"""section -> key -> what a value, or each of a list, may be; None is for the type to allow"""


class Checked:
    """A section whose values are held against `ALLOWED` whenever one is made."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for key, allowed in ALLOWED[self.section].items():
            given = getattr(self, key)
            for value in given if isinstance(given, list) else [given]:
                if value is not None and value not in allowed:
                    said = allowed if isinstance(allowed, Range) else f"allowed: {', '.join(allowed)}"
                    raise ValueError(f"{self._path(key)}: got {value!r}; {said}")
        if getattr(self, "final_learning_rate", None) is not None and getattr(self, "learning_rate", None) == 0:
            raise ValueError(f"{self._path('final_learning_rate')}: needs a learning_rate above 0 to come from")

    def _path(self, key: str) -> str:
        return f"{self.section}.{key}" if self.section else key


@dataclass
class AutoencoderConfig(Checked):
    section: ClassVar[str] = "model.autoencoder"
    block_out_channels: list[int] = field(default_factory=lambda: [128, 256, 512, 512])
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215  # latents are multiplied by it: about unit variance


@dataclass
class UNetConfig(Checked):
    section: ClassVar[str] = "model.unet"
    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])
    attention_levels: list[bool] = field(default_factory=lambda: [True, True, True, False])
    layers_per_block: int = 2
    attention_heads: int = 8
    norm_num_groups: int = 32
    sites: str = "conv_in"  # channel-extended convolutions: none | conv_in | down_blocks


@dataclass
class TextConfig(Checked):
    section: ClassVar[str] = "model.text"
    hidden_size: int = 768
    layers: int = 12
    heads: int = 12
    intermediate_size: int = 3072
    token_vectors: str | None = None  # file of vectors that new token embeddings start from; None: random


@dataclass
class ModelConfig(Checked):
    """The architecture, for training from scratch. The defaults are Stable Diffusion 1.5."""

    section: ClassVar[str] = "model"
    image_size: int = 256  # side in pixels of a square photo at the model's size
    hint_scale: str = "unit"  # see lcad.color.HINT_SCALES
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    text: TextConfig = field(default_factory=TextConfig)


@dataclass
class LabelsConfig:
    """Label maps of some photos of a folder, for captions and masks."""

    maps: str = MISSING  # folder of <photo's stem>.png with class ids
    names: str = MISSING  # file of lines "<id> <name>, <other names>", of what captions name
    mask_names: str | None = None  # the same, of what has masks where captions name it; None: as `names`
    confirmed: bool = False  # captions name only what the photo's own captions do, for maps that are often wrong


@dataclass
class SourceConfig(Checked):
    """One folder of captioned photos."""

    section: ClassVar[str] = "data.more"
    folder: str = MISSING  # folder of images (or with a subfolder images/)
    captions: str | None = None  # caption file; None: looked for, see lcad.text.captions.read_captions
    # where captions come from, see lcad.data.datasets.CAPTION_SOURCES: file, dominant_colors, label_maps, ...
    caption_sources: list[str] = field(default_factory=lambda: ["file"])
    label_maps: str | None = None  # for label_maps: folder of <photo's stem>.png with class ids
    label_names: str | None = None  # for label_maps: file of lines "<id> <name>"
    labels: list[LabelsConfig] = field(default_factory=list)  # label maps again, where one folder is not enough
    masks: str | None = None  # folder of mask files, see lcad.masks.files, for latent.refined and grounding
    splits: str | None = None  # JSON, name -> train | val | test; None: the last `validation` of the photos
    max_photos: int | None = None  # use only the first so many training photos
    repeat: int = 1  # how often each of them comes in an epoch


@dataclass
class DataConfig(SourceConfig):
    section: ClassVar[str] = "data"
    more: list[SourceConfig] = field(default_factory=list)  # further folders, mixed with the first
    left_out_words: list[str] = field(default_factory=list)  # training goes without captions that have one of them
    validation: int = 64  # photos of each folder for validation
    crop: str = "random"  # random (see zoom) | center
    zoom: float = 1.125  # random crops: the most that a photo is enlarged before it is cut
    flip: bool = True  # mirror half of the photos
    scarce: float = 0.3  # share of captions replaced by "a colorful image" (the paper)
    drop: float = 0.1  # share of captions dropped, for classifier-free guidance
    workers: int = 2  # processes that read photos
    packed: list[str] = field(default_factory=list)  # folders of a pack (scripts/pack_data.py) of all the above
    resident: bool = False  # keep what is trained on in the device's memory and draw batches there; needs `packed`
    crops: int = 0  # resident: random crops of each photo, beside the whole one


@dataclass
class TrainerConfig(Checked):
    section: ClassVar[str] = "trainer"
    batch_size: int = 8  # per device
    accumulate: int = 1  # batches per optimizer step
    epochs: int | None = None
    steps: int | None = None  # optimizer steps; whichever of both ends first
    hours: float | None = None  # stop after this much time, with a checkpoint
    precision: str = "32-true"  # Lightning's names: 32-true, bf16-mixed, 16-mixed, ...
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"  # Lightning's names: ddp, fsdp, ...
    gradient_checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False  # torch.compile the network's training pass: a minute or two at the start, then faster steps
    gradient_clip: float | None = None  # the norm that gradients are clipped to
    ema: float | None = None  # decay of an exponential moving average of the weights, such as 0.9999
    seed: int = 0
    logger: str = "csv"  # csv | tensorboard
    log_every: int = 50  # steps
    validate_every: int = 1000  # steps; also writes an image grid
    checkpoint_every: int = 500  # steps
    validation_batches: int = 8
    progress_bar: bool = True


@dataclass
class PixelConfig(Checked):
    """Stage 1, Eq. 4: L = L_rec + adversarial * L_dis + perceptual * L_per."""

    section: ClassVar[str] = "pixel"
    train: str = "luminance"  # luminance (the paper: autoencoder frozen) | autoencoder (a base model)
    learning_rate: float = 1e-6
    final_learning_rate: float | None = None  # cosine decay to this; None: constant
    artifact_map: str = "paper"  # paper (Eq. 3) | ldl (the release) | none (plain L1)
    artifact_floor: float = 0.0  # added to the map; see lcad.training.artifact_loss
    chroma_weight: float = 1.0  # > 1: chroma counts more in L_rec (Y'CbCr), for a base autoencoder
    adversarial: float = 1.0  # alpha; 0 leaves the discriminator out
    adversarial_start: int = 0  # steps in which the discriminator only learns
    discriminator_channels: int = 64
    perceptual: float = 0.5  # beta; 0 leaves LPIPS out
    perceptual_net: str = "vgg"  # vgg | alex | squeeze
    perceptual_backbone: str | None = None  # file of torchvision's weights for that net; None: torchvision's download
    kl: float = 1e-6  # weight of the KL term, for a base autoencoder


@dataclass
class LatentConfig(Checked):
    """Stage 2, Eq. 6."""

    section: ClassVar[str] = "latent"
    # name patterns of what is trained over unet.* and text_encoder.*; those that begin with ! take away
    trainable: list[str] = field(
        default_factory=lambda: ["unet.*.extension.*", "unet.up_blocks.*", "unet.conv_norm_out.*", "unet.conv_out.*"]
    )
    sites: str | None = None  # put channel-extended convolutions at these sites; None: as in `init`
    prediction: str | None = None  # what the UNet learns to predict: epsilon | v_prediction; None: as in `init`
    timestep_shift: float = 1.0  # > 1: more of the training at high noise; see `draw_timesteps`
    refined: float = 0.0  # share of the photos with masks whose attention is refined in training; the paper: none
    grounding: float = 0.0  # weight of a loss of the others' attention, that words find their objects; the paper: none
    looking: bool = False  # train copies of the weights, for finding masks alone; see lcad.models.localizer
    teacher: str | None = None  # align features with a frozen network's: torchvision's name, or name=file of weights
    teacher_node: str = "features.28"  # where in that network; this is conv5_3 of VGG16
    teacher_site: str = "mid_block.attentions.0"  # which module of the UNet is aligned
    teacher_weight: float = 0.5
    learning_rate: float = 5e-5
    final_learning_rate: float | None = None  # cosine decay to this; None: constant
    warmup_steps: int = 0
    cache: str | None = None  # folder for latents, luminance and text that do not change; None: none
    sample_steps: int = 20  # of the images in the log
    guidance: float = 5.0  # of those images, and saved as the model's own
    scheduler: str = "ddim"  # likewise: a row of ldm.schedulers.SCHEDULERS
    inference_steps: int = 50  # saved as the model's own

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.looking and not self.grounding:
            raise ValueError("latent.looking: words learn to look by latent.grounding; set that above 0")


@dataclass
class StageConfig(Checked):
    output: str = MISSING  # run folder: logs, Lightning checkpoints and, at the end, `model/`
    save_dtype: str = "float32"  # of the weights in `model/`: float32 | float16 | bfloat16
    init: str | None = None  # checkpoint folder to start from; None: from scratch, as `model` says
    # from scratch: parts that are taken from a checkpoint folder all the same, such as {vae: checkpoints/mini}
    init_parts: dict[str, str] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class PixelStageConfig(StageConfig):
    pixel: PixelConfig = field(default_factory=PixelConfig)


@dataclass
class LatentStageConfig(StageConfig):
    latent: LatentConfig = field(default_factory=LatentConfig)


@dataclass
class AnyStageConfig(PixelStageConfig, LatentStageConfig):
    """A config of either stage, for its data alone."""


def load_config(schema: type[StageConfig], path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Read a YAML config and `key=value` overrides into `schema`.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, a wrong type or a missing value, by path.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config; see configs/")
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r} is not key=value, such as trainer.batch_size=4")
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides))
        )
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise ConfigError(f"{path}: {error.full_key or ''}: {reason}") from error
    except (YAMLError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    return config
