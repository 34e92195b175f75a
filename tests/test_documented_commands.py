"""Every command that the documents and the help texts show is one that the real parsers take."""

import argparse
import ast
import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from lcad.cli.main import commands
from lcad.config import LatentStageConfig, PixelStageConfig, load_config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "checkpoints/README.md")),
    ROOT / "checkpoints" / "mini" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PROGRAMS = [*sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "lcad" / "cli").glob("*.py"))]
PLACEHOLDERS = {"SOURCE": "auto"}  # what a document writes for any of an option's values
SCHEMAS = {"train_pixel": PixelStageConfig, "train_latent": LatentStageConfig}
START = re.compile(r"python scripts/\w+\.py\b|\blcad (?:(?!import)[a-z]+\b|--)|pip install (?=-e|\"?lcad)")


class Parsed(Exception):
    """Holds what a parser made of a command that it took."""


def code_of(text: str) -> tuple[list[str], list[str]]:
    """The lines of code blocks, and the inline code, of a document in Markdown; continued lines are one."""
    text = re.sub(r"\\\n\s*", " ", text)
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.S | re.M)
    indented = [line for line in rest.splitlines() if line.startswith("    ")]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    return [*"\n".join(fenced).splitlines(), *indented], inline


def shown_commands() -> dict[str, tuple[list[str], bool]]:
    """Where a command is shown, and what -> its words, and whether it is whole: in running text it may be a part."""
    found = {}
    for file in [*DOCUMENTS, *PROGRAMS]:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".py":
            docstring = ast.get_docstring(ast.parse(text)) or ""
            lines = re.sub(r"\\\n\s*", " ", docstring).splitlines()
            blocks, inline = [line for line in lines if START.match(line.strip())], []
        else:
            blocks, inline = code_of(text)
        parts = [
            (part, whole)
            for lines, whole in ((blocks, True), (inline, False))
            for line in lines
            for part in line.split("&&")
        ]
        for part, whole in parts:
            start = START.search(part)
            if start:
                words = shlex.split(re.sub(r"\$\w+", "1", part[start.start() :]), comments=True)
                words = [PLACEHOLDERS.get(word, word) for word in words if word not in ("...", "COMMAND")]
                found[f"{file.relative_to(ROOT)}: {' '.join(words)}"] = words, whole
    return found


SHOWN = shown_commands()


def program_of(words: list[str]) -> tuple[str, list[str]]:
    """The module that a command runs, and its options."""
    if words[0] == "python":
        name = Path(words[1]).stem
        installed = f"lcad.cli.{name}"
        return installed if installed in {row[0] for row in commands().values()} else f"scripts.{name}", words[2:]
    known = {name: row[0] for name, row in commands().items()}
    for length in (2, 1):
        if " ".join(words[1 : 1 + length]) in known:
            return known[" ".join(words[1 : 1 + length])], words[1 + length :]
    return "lcad.cli.main", words[1:]


def parsed(module: str, options: list[str], whole: bool, monkeypatch) -> argparse.Namespace | None:
    """What the module's own parser makes of the options; None where they ask for help alone."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        for action in self._actions:
            action.required = action.required and whole
        raise Parsed(parse_args(self, args, namespace))

    program = import_module(module)
    if module == "lcad.cli.sample":
        return program.parse(options)  # it checks more than the parser does
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    try:
        program.main(options)
    except Parsed as done:
        return done.args[0]
    return None


def test_commands_are_found():
    files = {shown.partition(":")[0] for shown in SHOWN}
    assert {"README.md", "docs/mini.md", "docs/masks.md", "lcad/cli/evaluate.py", "scripts/benchmark.py"} <= files
    assert len(SHOWN) > 90


@pytest.mark.parametrize("shown", SHOWN)
def test_a_shown_command_is_taken(shown, monkeypatch, capsys):
    words, whole = SHOWN[shown]
    if words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [name for text in re.findall(r"\[([\w,]+)\]", " ".join(words)) for name in text.split(",")]
        assert set(named) <= set(extras)
        return
    if words[0] == "python":
        assert (ROOT / words[1]).is_file()
    module, options = program_of(words)
    try:
        args = parsed(module, options, whole, monkeypatch)
    except SystemExit as stopped:
        assert stopped.code == 0, capsys.readouterr().err
        return
    name = module.rpartition(".")[2]
    if name in SCHEMAS and args is not None and args.config is not None:
        load_config(SCHEMAS[name], ROOT / args.config, args.overrides)
