"""Functions of tensors captured as CUDA graphs: one launch in place of the thousands that a UNet's kernels take.

On the CPU it is tested with a stand-in for the capture itself; `scripts/studies/device_check.py` compares on a GPU.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Mapping[Any, Tensor]
Capture = Callable[[Callable[[], Tensor], torch.device], Callable[[], Tensor]]
"""A function that always reads the same tensors, and their device -> one that runs the same kernels again."""

GRAPHS = 8  # kept at a time: of a photo's size two, for the steps with and without instance masks
WARM_UPS = 3  # runs before a capture, in which libraries choose their kernels
# what a UNet's kernels depend on besides its tensors: diffusers' processors and FreeU, LoRA's scales and switches
SETTINGS = (
    *("training", "processor", "s1", "s2", "b1", "b2"),
    *("scaling", "merged_adapters", "_active_adapter", "_disable_adapters"),
)


def check_cuda(device: torch.device) -> None:
    """Raises ValueError: graphs cannot be captured there."""
    if device.type != "cuda":
        raise ValueError(f"CUDA graphs need a CUDA device, got {device}; leave them out, or choose device cuda")


class CudaCapture:
    """A `Capture` on a CUDA device; its graphs share their memory, as none runs beside another."""

    def __init__(self) -> None:
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def __call__(self, function: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs), None)
        with torch.cuda.device(device):
            own, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(own)
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function()
            own.wait_stream(side)
            # another thread may use the device meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                output = function()
        self._graphs.add(graph)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


class _Captured:
    """One graph and the tensors that it reads; `holder` is whose inputs these hold now."""

    def __init__(self, function: Callable[[Inputs], Tensor], inputs: Inputs, capture: Capture):
        with torch.inference_mode(False):  # or a later call outside of it could not write into them
            self._inputs = own = {name: tensor.clone() for name, tensor in inputs.items()}
        self._replay = capture(lambda: function(own), next(iter(own.values())).device)
        self.holder: Callable[[], object] = lambda: None

    def take(self, inputs: Inputs) -> None:
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor)

    def run(self) -> Tensor:
        return self._replay().clone()  # the next run writes to the same place


class CapturedFunction:
    """A function of tensors that is replayed where its graph is known, with a call's own inputs.

    Args:
        key: what the function depends on besides the shapes and types of its inputs.
        fixed: inputs that are the same in all calls of this object; they are copied only where others came between.
    """

    def __init__(self, graphs: "GraphCache", key: Hashable, function: Callable[[Inputs], Tensor], fixed: Inputs):
        self._graphs, self._key, self._function, self._fixed = graphs, key, function, fixed

    def __call__(self, changing: Inputs) -> Tensor:
        """Its result for the other inputs, in memory of its own."""
        inputs = {**self._fixed, **changing}
        shapes = tuple((name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in inputs.items())
        captured = self._graphs.captured((self._key, shapes), self._function, inputs)
        captured.take(changing if captured.holder() is self else inputs)
        captured.holder = weakref.ref(self)
        return captured.run()


class GraphCache:
    """The graphs of one module, those used last.

    Args:
        capture: how a function becomes a graph; tests have one that needs no GPU.
        limit: graphs kept at a time.
        asked: someone wants it, who is to know where it cannot be used.
    """

    def __init__(self, capture: Capture | None = None, limit: int = GRAPHS, asked: bool = True):
        self.asked = asked
        self._capture, self._needs_cuda = capture or CudaCapture(), capture is None
        self._limit = limit
        self._graphs: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._module: Callable[[], nn.Module | None] = lambda: None
        self._state: Hashable = None

    def refusal(self, module: nn.Module) -> str | None:
        """Why the module's forward cannot be captured now; None: it can."""
        if any(hasattr(part, "_hf_hook") for part in module.modules()):
            return "its weights are offloaded"
        device = next(module.parameters()).device
        if torch.is_autocast_enabled(device.type):
            return "autocast is on"
        return f"it is on {device}" if self._needs_cuda and device.type != "cuda" else None

    def clear(self) -> None:
        """Forget all graphs, which hold the device's memory."""
        self._graphs.clear()

    def use_for(self, module: nn.Module) -> None:
        """Forget graphs of another module, and of this one if its weights have moved or its settings changed.

        Weights that change in place are read by the graphs as they are.
        """
        state = _state(module)
        if self._module() is not module or self._state != state:
            self._graphs.clear()
            self._module, self._state = weakref.ref(module), state

    def captured(self, key: Hashable, function: Callable[[Inputs], Tensor], inputs: Inputs) -> _Captured:
        """The graph of that key, captured if there is none; the one unused for longest makes room for it."""
        if key not in self._graphs:
            while len(self._graphs) >= self._limit:
                self._graphs.popitem(last=False)
            try:
                self._graphs[key] = _Captured(function, inputs, self._capture)
            except torch.cuda.OutOfMemoryError:
                if not self._graphs:
                    raise
                self._graphs.clear()
            if key not in self._graphs:  # here, where the exception does not keep its memory
                self._graphs[key] = _Captured(function, inputs, self._capture)
        self._graphs.move_to_end(key)
        return self._graphs[key]


def _state(module: nn.Module) -> Hashable:
    """Where a module's weights lie, and its parts' `SETTINGS`."""
    tensors = (*module.parameters(), *module.buffers())
    settings = [[repr(part.__dict__[name]) for name in SETTINGS if name in part.__dict__] for part in module.modules()]
    return tuple(tensor.data_ptr() for tensor in tensors), repr(settings)
