#!/usr/bin/env python3
"""Which small mistakes in a file would its tests not notice? A draw of mutants, each tried in a copy of the repository.

python scripts/studies/mutate.py lcad/color.py tests/test_color.py tests/test_metrics.py --count 60 --seed 1

A mutant changes one operator, number, string, condition, keyword, call or returned value; not what is only said. Tests
run in forks of this process, which has loaded what takes long; a mutant that hangs has been noticed, too.
"""

import argparse
import ast
import copy
import gc
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

LOADED = ("diffusers.pipelines", "imagecodecs", "open_clip", "pytorch_lightning", "skimage.metrics", "torchvision")
PAIRS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn),
         (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr), (ast.And, ast.Or)]  # fmt: skip
OTHER = dict([*PAIRS, *(pair[::-1] for pair in PAIRS), *((op, ast.Mult) for op in (ast.FloorDiv, ast.Pow, ast.Mod))])


def words(module: ast.Module) -> set[ast.AST]:
    """What is said to readers and type checkers alone."""
    nodes, fields = list(ast.walk(module)), ("annotation", "returns", "format_spec", "exc", "msg")
    said = [getattr(node, name, None) for node in nodes for name in fields]
    said += [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return {part for whole in said if whole is not None for part in ast.walk(whole)}


def changes(node: ast.AST) -> Iterator[tuple[str, dict | ast.AST]]:
    """What is changed, and a node's new fields or what it becomes."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        yield "comparison", {"ops": [OTHER[type(node.ops[0])](), *node.ops[1:]]}
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in OTHER:
        yield "operator", {"op": OTHER[type(node.op)]()}
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield from ((f"if {value}", {"test": ast.Constant(value)}) for value in (True, False))
    elif isinstance(node, ast.UnaryOp):
        yield "sign", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield "number", {"value": not node.value if isinstance(node.value, bool) else node.value + 1}
    elif isinstance(node, ast.Constant) and node.value and isinstance(node.value, (str, bytes)):
        yield "string", {"value": node.value + type(node.value)(node.value[:1])}
    elif isinstance(node, ast.Call):
        for own in (own for own in node.keywords if own.arg):
            yield f"without {own.arg}", {"keywords": [other for other in node.keywords if other is not own]}
    if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "deleted", ast.Pass()
    if isinstance(node, ast.Return) and ast.unparse(node) not in ("return", "return None"):
        yield "returns None", {"value": ast.Constant(None)}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(where and what, the new source) of each."""
    said = words(module := ast.parse(source))
    for index, node in enumerate(ast.walk(module)):
        for name, change in () if node in said else changes(node):
            own = list(ast.walk(mutant := copy.deepcopy(module)))[index]
            if isinstance(change, ast.AST):
                own.__class__, change = change.__class__, vars(change)
            vars(own).update(change)
            yield f"{node.lineno}: {name}: {ast.unparse(node).splitlines()[0][:90]}", ast.unparse(mutant)


def passes(tests: list[str]) -> bool:
    """Whether all tests pass, within the limit."""
    if not (child := os.fork()):
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os._exit(int(pytest.main(["-xq", "-n0", "-p", "no:cacheprovider", *tests])))
    ends = time.monotonic() + 150  # seconds
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > ends:
            os.killpg(child, 9)
        time.sleep(0.05)
    return done[1] == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("tests", nargs="+", help="files of tests; the quickest first")
    parser.add_argument("--count", type=int, default=60, help="mutants that are drawn, by --seed")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    list(map(import_module, filter(find_spec, LOADED)))
    gc.freeze()  # else pytest's own collections take longer than most tests
    root = Path(__file__).parents[2].resolve()
    with tempfile.TemporaryDirectory() as folder:
        tree = shutil.copytree(root, Path(folder, "tree"), ignore=shutil.ignore_patterns(".*", "__pycache__"))
        Path(folder, "shared").symlink_to(root.parent / "shared")  # reference numbers of some tests
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        sys.dont_write_bytecode = True
        found = list(mutants(args.file.read_text(encoding="utf-8")))
        drawn, noticed = random.Random(args.seed).sample(found, min(args.count, len(found))), 0
        if not passes(args.tests):
            parser.error("the tests fail without a mutant")
        for text, mutant in drawn:
            args.file.write_text(mutant, encoding="utf-8")
            noticed += not (passed := passes(args.tests))
            print(f"{args.file}:{text}\n" * passed, end="", flush=True)
        print(f"{args.file}: {noticed} of {len(drawn)} noticed, of {len(found)} there are")


if __name__ == "__main__":
    main()
