"""Gradio, imported in half the time: without the stub files (.pyi) that it rewrites for editors at each start."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

WRITES_STUBS = "gradio.component_meta", "create_or_modify_pyi"  # a module and its function, called for each component


class _NoStubs(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == WRITES_STUBS[0] else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        setattr(module, WRITES_STUBS[1], lambda *_: None)


@contextmanager
def without_stubs() -> Iterator[None]:
    """For a first `import gradio`; where it is imported already nothing changes."""
    finder = _NoStubs()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
