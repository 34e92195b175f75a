"""What keeps the code readable: files and functions that can be seen whole, few arguments, few loose files.

Only sources are read here, nothing of the project is imported. How branched a function may be is ruff's to say (C901).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for room in ("lcad", "ldm", "scripts") for path in (ROOT / room).rglob("*.py"))
FILE_LINES = 350
BODY_LINES = 60
LOOSE_FILES = 12
PARAMETERS = 7
MANY_PARAMETERS = {"ExtendedUNet", "LCADPipeline", "PhotoDataset", "ResidentPhotos"}
"""Classes whose constructors take more; this list only shrinks. The first two have diffusers' signatures: a saved
config names each setting of a UNet, and each part of a pipeline."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines of a function without its signature and docstring."""
    body = function.body[ast.get_docstring(function, clean=False) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> int:
    """Of a method, without self."""
    given = function.args
    starred = [name for name in (given.vararg, given.kwarg) if name is not None]
    return len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) + len(starred) - 1


def constructors(tree: ast.AST) -> Iterator[tuple[str, Function]]:
    """Class and `__init__` of each class that has one."""
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef):
            yield from (
                (owner.name, node) for node in owner.body if isinstance(node, Function) and node.name == "__init__"
            )


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_files_are_short():
    lines = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert len(lines) > 100, "the sources are elsewhere"
    long = {str(path): count for path, count in lines.items() if count > FILE_LINES}
    assert not long, f"more than {FILE_LINES} lines; give each purpose a file of its own: {long}"


def test_functions_can_be_seen_whole(trees):
    counts = {f"{path}: {one.name}": body_lines(one) for path, tree in trees.items() for one in functions(tree)}
    long = {name: count for name, count in counts.items() if count > BODY_LINES}
    assert not long, f"bodies of more than {BODY_LINES} lines; take a step out and give it a name: {long}"


def test_constructors_take_little(trees):
    counts = {name: parameters(one) for tree in trees.values() for name, one in constructors(tree)}
    many = {name: count for name, count in counts.items() if count > PARAMETERS}
    new = {name: count for name, count in many.items() if name not in MANY_PARAMETERS}
    assert not new, f"more than {PARAMETERS} parameters; what belongs together can be one dataclass: {new}"
    assert many.keys() == MANY_PARAMETERS, f"take from the list what has shrunk: {MANY_PARAMETERS - many.keys()}"


def test_few_files_lie_loose():
    loose = sorted(path.name for path in (ROOT / "lcad").glob("*.py"))
    assert len(loose) <= LOOSE_FILES, f"more than {LOOSE_FILES} files of lcad/ are in no room: {loose}"


EXAMPLE = '''
class A:
    def __init__(self, a, /, b, *c, d=1, **e):
        """Doc
        goes on."""
        b()

        d

    async def empty(self):
        """Nothing else."""
'''


def test_what_is_counted():
    tree = ast.parse(EXAMPLE)
    assert {one.name: body_lines(one) for one in functions(tree)} == {"__init__": 3, "empty": 0}
    assert [(name, parameters(one)) for name, one in constructors(tree)] == [("A", 5)]
