"""The typed configs of both training stages: every key, its type and its meaning.

A YAML file and `key=value` overrides are merged into these; what is not allowed is an error that names the key's path.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lcad.config_keys import COUNT, NATURAL, NUMBER, POSITIVE, SHARE, Checked, Range, key, take_new_names
from lcad.defaults import DTYPES, LORA_LAYERS, SITES


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line with the key's path."""


@dataclass
class AutoencoderConfig(Checked):
    section: ClassVar[str] = "model.autoencoder"
    block_out_channels: list[int] = key([128, 256, 512, 512], COUNT)
    layers_per_block: int = key(2, COUNT)
    latent_channels: int = key(4, COUNT)
    norm_num_groups: int = key(32, COUNT)
    scaling_factor: float = key(0.18215, POSITIVE)
    """Latents are multiplied by it, to about unit variance."""


@dataclass
class UNetConfig(Checked):
    section: ClassVar[str] = "model.unet"
    block_out_channels: list[int] = key([320, 640, 1280, 1280], COUNT)
    attention_levels: list[bool] = field(default_factory=lambda: [True, True, True, False])
    layers_per_block: int = key(2, COUNT)
    attention_heads: int = key(8, COUNT)
    norm_num_groups: int = key(32, COUNT)
    sites: str = key("conv_in", SITES)
    """Where channel-extended convolutions are."""


@dataclass
class TextConfig(Checked):
    section: ClassVar[str] = "model.text"
    hidden_size: int = key(768, COUNT)
    layers: int = key(12, COUNT)
    heads: int = key(12, COUNT)
    intermediate_size: int = key(3072, COUNT)
    token_vectors: str | None = None
    """File of vectors that new token embeddings start from; None: random."""


@dataclass
class ModelConfig(Checked):
    """The architecture, for training from scratch. The defaults are Stable Diffusion 1.5."""

    section: ClassVar[str] = "model"
    image_size: int = key(256, COUNT)
    """Side in pixels of a square photo at the model's size."""
    hint_scale: str = key("unit", ("unit", "release"))
    """See `lcad.color.HINT_SCALES`."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    text: TextConfig = field(default_factory=TextConfig)


@dataclass
class LabelsConfig:
    """Label maps of some photos of a folder, for captions and masks."""

    maps: str = MISSING
    """Folder of <photo's stem>.png with class ids."""
    names: str = MISSING
    """File of lines "<id> <name>, <other names>", of what captions name."""
    mask_names: str | None = None
    """The same, of what has masks where captions name it; None: as `names`."""
    confirmed: bool = False
    """Captions name only what the photo's own captions do, for maps that are often wrong."""


@dataclass
class SourceConfig(Checked):
    """One folder of captioned photos."""

    section: ClassVar[str] = "data.more"
    folder: str = MISSING
    """Folder of images, or with a subfolder images/."""
    captions: str | None = None
    """Caption file; None: looked for, see `lcad.text.captions.read_captions`."""
    caption_sources: list[str] = field(default_factory=lambda: ["file"])
    """Where captions come from, see `lcad.data.datasets.CAPTION_SOURCES`: file, dominant_colors, label_maps, ..."""
    label_maps: str | None = None
    """For label_maps: folder of <photo's stem>.png with class ids."""
    label_names: str | None = None
    """For label_maps: file of lines "<id> <name>"."""
    labels: list[LabelsConfig] = field(default_factory=list)
    """Label maps again, where one folder is not enough."""
    masks: str | None = None
    """Folder of mask files, see `lcad.masks.files`, for instance sampling in training and the localizer's loss."""
    splits: str | None = None
    """JSON, name -> train | val | test; None: the last `validation` of the photos."""
    max_photos: int | None = key(None, COUNT)
    """Use only the first so many training photos."""
    repeat: int = key(1, COUNT)
    """How often each of them comes in an epoch."""


@dataclass
class DataConfig(SourceConfig):
    section: ClassVar[str] = "data"
    more: list[SourceConfig] = field(default_factory=list)
    """Further folders, mixed with the first."""
    left_out_words: list[str] = field(default_factory=list)
    """Training goes without captions that have one of them."""
    validation: int = key(64, NATURAL)
    """Photos of each folder for validation."""
    crop: str = key("random", ("random", "center"))
    zoom: float = key(1.125, Range(1))
    """Of random crops: the most that a photo is enlarged before it is cut."""
    flip: bool = True
    """Mirror half of the photos."""
    scarce_probability: float = key(0.3, SHARE)
    """That a caption is replaced by "a colorful image" (the paper)."""
    caption_dropout: float = key(0.1, SHARE)
    """Probability that a caption is dropped, for classifier-free guidance."""
    num_workers: int = key(2, NATURAL)
    packed: list[str] = field(default_factory=list)
    """Folders of a pack (scripts/pack_data.py) of all the above."""
    resident: bool = False
    """Keep what is trained on in the device's memory and draw batches there; needs `packed`."""
    crops: int = key(0, NATURAL)
    """If resident: random crops of each photo, beside the whole one."""


@dataclass
class TrainerConfig(Checked):
    section: ClassVar[str] = "trainer"
    batch_size: int = key(8, COUNT)
    """Per device."""
    accumulate_grad_batches: int = key(1, COUNT)
    """Batches per optimizer step."""
    max_epochs: int | None = key(None, COUNT)
    max_steps: int | None = key(None, COUNT)
    """Optimizer steps; whichever of epochs, steps and hours ends first."""
    hours: float | None = key(None, POSITIVE)
    """Stop after this much time, with a checkpoint."""
    precision: str = "32-true"
    """By Lightning's names, as accelerator and strategy (ddp, fsdp, ...): 32-true, bf16-mixed, 16-mixed, ..."""
    accelerator: str = "auto"
    devices: int = key(1, COUNT)
    strategy: str = "auto"
    gradient_checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False
    """torch.compile the network's training pass: a minute or two at the start, then faster steps."""
    gradient_clip: float | None = key(None, POSITIVE)
    """The norm that gradients are clipped to."""
    ema_decay: float | None = key(None, SHARE)
    """Of an exponential moving average of the weights, such as 0.9999; None: no average."""
    seed: int = key(0, Range(0, 2**32 - 1))
    logger: str = key("csv", ("csv", "tensorboard"))
    log_every: int = key(50, COUNT)
    """Steps, as in the two below."""
    validate_every: int = key(1000, COUNT)
    """Also writes an image grid."""
    checkpoint_every: int = key(500, COUNT)
    validation_batches: int = key(8, NATURAL)
    progress_bar: bool = True


@dataclass
class PixelConfig(Checked):
    """Stage 1, Eq. 4: L = L_rec + adversarial_weight * L_dis + perceptual_weight * L_per."""

    section: ClassVar[str] = "pixel"
    train: str = key("luminance", ("luminance", "autoencoder"))
    """luminance: the paper, with the autoencoder frozen. autoencoder: a base model."""
    learning_rate: float = key(1e-6, NUMBER)
    final_learning_rate: float | None = key(None, NUMBER)
    """Cosine decay to this; None: constant."""
    artifact_map: str = key("paper", ("paper", "ldl", "none"))
    """paper (Eq. 3), ldl (the release) or none (plain L1)."""
    artifact_floor: float = key(0.0, NUMBER)
    """Added to the map; see `lcad.training.artifact_loss`."""
    chroma_weight: float = key(1.0, NUMBER)
    """Above 1 chroma counts more in L_rec (Y'CbCr), for a base autoencoder."""
    adversarial_weight: float = key(1.0, NUMBER)
    """Alpha; 0 leaves the discriminator out."""
    adversarial_start: int = key(0, NATURAL)
    """Steps in which the discriminator only learns."""
    discriminator_channels: int = key(64, COUNT)
    perceptual_weight: float = key(0.5, NUMBER)
    """Beta; 0 leaves LPIPS out."""
    perceptual_net: str = key("vgg", ("vgg", "alex", "squeeze"))
    perceptual_backbone: str | None = None
    """File of torchvision's weights for that net; None: torchvision's download."""
    kl_weight: float = key(1e-6, NUMBER)
    """Of the KL term, for a base autoencoder."""


@dataclass
class LatentConfig(Checked):
    """Stage 2, Eq. 6."""

    section: ClassVar[str] = "latent"
    trainable: list[str] = field(
        default_factory=lambda: ["unet.*.extension.*", "unet.up_blocks.*", "unet.conv_norm_out.*", "unet.conv_out.*"]
    )
    """Name patterns of what is trained over unet.* and text_encoder.*; those that begin with ! take away."""
    sites: str | None = key(None, SITES)
    """Put channel-extended convolutions there; None: as in `init`."""
    prediction_type: str | None = key(None, ("epsilon", "v_prediction"))
    """What the UNet learns to predict; None: as in `init`."""
    rescale_betas_zero_snr: bool | None = None
    """The last time step is pure noise, see `ldm.schedulers.build_scheduler`; None: as in `init`. The paper: not."""
    timestep_shift: float = key(1.0, POSITIVE)
    """Above 1 there is more of the training at high noise; see `draw_timesteps`."""
    instance_sampling_probability: float = key(0.0, SHARE)
    """That the attention of a photo with masks is moved towards them in training, as in sampling; the paper: never."""
    localizer_weight: float = key(0.0, NUMBER)
    """Of a loss of the other photos' attention, by which words find their objects; the paper: none."""
    train_localizer: bool = False
    """Train copies of the weights, for finding masks alone; see `lcad.models.localizer`."""
    semantic_backbone: str | None = None
    """Show the UNet a classifier's features too: a row of `lcad.models.semantic_features.BACKBONES`, or row=file."""
    teacher: str | None = None
    """Align features with a frozen network's: torchvision's name, or name=file of weights."""
    teacher_node: str = "features.28"
    """Where in that network; this is conv5_3 of VGG16."""
    teacher_site: str = "mid_block.attentions.0"
    """Which module of the UNet is aligned."""
    teacher_weight: float = key(0.5, NUMBER)
    perceptual_weight: float = key(0.0, NUMBER)
    """Of LPIPS(vgg) between the photo and what the predicted latents decode to; the paper: none in this stage."""
    perceptual_share: float = key(0.25, SHARE)
    """Of a batch: the photos it is measured on, since decoding costs more than denoising."""
    perceptual_backbone: str | None = None
    """File of torchvision's VGG16 weights; None: torchvision's download."""
    learning_rate: float = key(5e-5, NUMBER)
    final_learning_rate: float | None = key(None, NUMBER)
    """Cosine decay to this; None: constant."""
    warmup_steps: int = key(0, NATURAL)
    cache: str | None = None
    """Folder for latents, luminance and text that do not change; None: none."""
    sample_steps: int = key(20, Range(1, 1000))
    """Of the images in the log."""
    guidance_scale: float = key(5.0, NUMBER)
    """Of those images, and saved as the model's own."""
    scheduler: str = "ddim_trailing"
    """A row of `ldm.schedulers.SCHEDULERS`, saved likewise, as all that follow; the paper's is ddim."""
    num_inference_steps: int = key(10, Range(1, 1000))
    """The paper's are 50, which 10 equal with this scheduler (docs/speed.md); of the rest see `LCADPipeline`."""
    antithetic_noise: bool = False
    second_pass_size: int = key(0, NATURAL)
    unmasked_saturation: float = key(1.0, Range(0, 2))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_localizer and not self.localizer_weight:
            raise ValueError("latent.train_localizer: it learns by latent.localizer_weight; set that above 0")
        if self.perceptual_weight and self.cache is not None:
            raise ValueError("latent.perceptual_weight: it looks at the photos, which latent.cache leaves out")

    @property
    def keeps_colors(self) -> bool:
        """Do the weights that colorize stay as they are in this training?"""
        return self.train_localizer


@dataclass
class DistillationConfig(LatentConfig):
    """Latent consistency distillation; `guidance_scale` is baked in."""

    trainable: list[str] = field(default_factory=lambda: ["unet.*.lora_*"])
    learning_rate: float = key(1e-4, NUMBER)
    sample_steps: int = key(4, Range(1, 1000))
    lora_rank: int = key(64, COUNT)
    lora_layers: list[str] = field(default_factory=lambda: [*LORA_LAYERS])
    """Ends of the names of what has a LoRA beside it; channel-extended convolutions never have."""
    solver_steps: int = key(50, Range(1, 1000))
    """Of the teacher's sampling, of which the student jumps over one or more."""
    huber_c: float = key(0.001, POSITIVE)
    """Of the pseudo-Huber loss."""

    @property
    def keeps_colors(self) -> bool:
        return True


@dataclass
class StageConfig(Checked):
    output: str = MISSING
    """Run folder: logs, Lightning checkpoints and, at the end, `model/`."""
    save_dtype: str = key(DTYPES[0], DTYPES)
    """Of the weights in `model/`."""
    init: str | None = None
    """Checkpoint folder to start from; None: from scratch, as `model` says."""
    init_parts: dict[str, str] = field(default_factory=dict)
    """From scratch: parts that are taken from a checkpoint folder all the same, such as {vae: checkpoints/mini}."""
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
class DistillationStageConfig(LatentStageConfig):
    init: str | None = MISSING
    latent: DistillationConfig = field(default_factory=DistillationConfig)


@dataclass
class AnyStageConfig(PixelStageConfig, LatentStageConfig):
    """A config of either stage, for its data alone."""


def load_config(schema: type[StageConfig], path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Read a YAML config and `key=value` overrides into `schema`.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, a wrong type or a missing value, by path.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such config; see configs/")
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r} is not key=value, such as trainer.batch_size=4")
    try:
        given = {str(path): OmegaConf.load(path), "overrides": OmegaConf.from_dotlist(list(overrides))}
        named = [take_new_names(OmegaConf.to_container(values), source) for source, values in given.items()]
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), *named))
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise ConfigError(f"{path}: {error.full_key or ''}: {reason}") from error
    except (YAMLError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    return config
