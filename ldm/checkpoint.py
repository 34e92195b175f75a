"""Weight files that come from strangers: tensors only, no code, one clear line when a file cannot be used."""

import inspect
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import ConfigMixin

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
ZIP_MAGIC = b"PK\x03\x04"


class CheckpointError(ValueError):
    """Weights that cannot be used; the message is one line: what, where, what to do."""


def load_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a state dict without running any code of the file.

    Args:
        path: `.safetensors`, or a `.ckpt`, `.pt`, `.pth`, `.bin` made by `torch.save`; a dict with an entry
            `state_dict` (Lightning's layout) is unwrapped. Pickles are mapped into memory, not copied, where
            their format allows: keep the file as it is for as long as the tensors live.

    Returns:
        Key -> tensor on the CPU, in the file's order and types.

    Raises:
        CheckpointError: a missing, empty or damaged file, a folder, another suffix, a pickle that needs more than
            tensors, or entries that are not tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give one weight file ({', '.join(SUFFIXES)})")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file; check the path")
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{path}: unknown kind of weight file {path.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    content = _read_pickle(path) if path.suffix.lower() in PICKLE_SUFFIXES else _read_safetensors(path)

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict of tensors")
    if not content:
        raise CheckpointError(f"{path}: the state dict is empty; copy the file again from its source")
    strangers = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strangers:
        raise CheckpointError(f"{path}: entries that are not tensors: {listing(strangers)}; save the state dict alone")
    return content


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError: weights of that file or folder are not finite."""
    bad = [name for name, value in weights.items() if not value.sum(dtype=torch.float32).isfinite()]
    if bad:
        raise CheckpointError(f"{path}: {len(bad)} weights are not finite, such as {bad[0]}; copy or train it again")


def write_weights(path: Path, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write tensors as safetensors, in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.to(dtype).contiguous() for name, value in weights.items()}, path, {"format": "pt"})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> object:
    with path.open("rb") as file:
        is_zip = file.read(4) == ZIP_MAGIC  # only torch's zip format (since 1.6) can be mapped into memory
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL ([\w.]+)", str(error))
        if needs is None:
            raise _damaged(path, "not a pickle of tensors") from error
        raise CheckpointError(
            f"{path}: this pickle holds more than tensors ({needs[1]}), and reading that could run code; "
            "convert it with its own tools to safetensors and give that file"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, error) from error


def _damaged(path: Path, cause: object) -> CheckpointError:
    reason = str(cause).split("\n")[0].split(". ")[0] or type(cause).__name__
    return CheckpointError(
        f"{path}: damaged, truncated or not a weight file ({reason}); "
        "copy it again from its source (a git-lfs pointer has to be pulled first)"
    )


def build_with_weights(
    build: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str] | None = None,
    zeros: str | None = None,
) -> nn.Module:
    """Build a module that takes over `tensors` themselves: its own random weights are never allocated.

    Args:
        tensors: one for every key of the module's state dict, all of the same type.
        names: key -> what the file calls it, for error messages.
        zeros: parameters whose key ends with this and that are not in `tensors` start at zero.

    Raises:
        CheckpointError: missing keys, left over keys or wrong shapes; the message lists all three kinds.
    """
    with init_empty_weights(include_buffers=False):
        model = build()
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    dtype = next(iter(tensors.values())).dtype if tensors else torch.float32
    zero_keys = [key for key in wanted if zeros and key.endswith(zeros) and key not in tensors]
    tensors = {**tensors, **{key: torch.zeros(wanted[key], dtype=dtype) for key in zero_keys}}
    _check_match(type(model).__name__, wanted, tensors, names or {})
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


def rebuilt(model: "ConfigMixin", **settings: Any) -> Any:
    """A model of diffusers again, of its class and with its settings but these; weights are new, on the CPU."""
    names = inspect.signature(type(model).__init__).parameters
    return type(model)(**{name: model.config[name] for name in names if name != "self"} | settings)


def _check_match(
    model: str, wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    missing = [key for key in wanted if key not in tensors]
    left_over = [names.get(key, key) for key in tensors if key not in wanted]
    wrong = [
        f"{names.get(key, key)} is {tuple(tensors[key].shape)}, needs {tuple(shape)}"
        for key, shape in wanted.items()
        if key in tensors and tensors[key].shape != shape
    ]
    problems = [
        f"{title}: {listing(keys)}"
        for title, keys in (("missing keys", missing), ("left over keys", left_over), ("wrong shapes", wrong))
        if keys
    ]
    if problems:
        raise CheckpointError(f"these weights are not those of a {model}: {'; '.join(problems)}")


def listing(keys: Iterable[str], limit: int = 10) -> str:
    """The first `limit` keys, and how many there are if there are more."""
    keys = list(keys)
    more = f", ... ({len(keys)} in all)" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def first_line(error: BaseException) -> str:
    """What an error says, in one line; of one that says nothing, its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
