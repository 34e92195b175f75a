"""What a stranger installs: a light import, a core that colorizes alone, and extras that an error names."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import lcad
from lcad.cli import main as cli
from lcad.cli.common import EXTRAS, reporting

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = sorted({*EXTRAS, "cv2", "pillow_heif", "timm"})

WITHOUT_EXTRAS = f"""
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
hidden = {OPTIONAL!r}
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest)
from lcad.cli.main import main
"""


def names(requirements: list[str]) -> set[str]:
    """The distributions of requirements, spelled as pip does; an extra of this package is taken apart."""
    found = set()
    for requirement in requirements:
        own = re.fullmatch(r"lcad\[(.+)\]", requirement)
        if own:
            found.update(*(names(PROJECT["optional-dependencies"][extra]) for extra in own[1].split(",")))
        else:
            found.add(re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower())
    return found


def test_one_version():
    assert "version" in PROJECT["dynamic"] and re.fullmatch(r"\d+\.\d+\.\d+\S*", lcad.__version__)
    assert lcad.__version__ not in (ROOT / "pyproject.toml").read_text() + (ROOT / "setup.py").read_text()


def test_environment_is_that_of_the_project():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(text for text in packages if str(text).startswith("python="))
    assert PROJECT["requires-python"] == f">={python.partition('=')[2]}"
    (pip,) = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    assert pip == "-e .[dev]"


def test_dev_is_all():
    everything = names(["lcad[dev]"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        assert names(requirements) <= everything, extra


def test_a_command_line_loads_nothing_else():
    """Not even numpy: `lcad --help` has to answer at once."""
    code = "import sys, lcad, lcad.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.splitlines()[-1] == "['__main__', 'lcad']" or run.stdout.splitlines()[-1] == "['lcad']"
    assert "colorize photographs" in run.stdout


def test_the_core_colorizes_alone(tiny_checkpoint, photo_folder, tmp_path):
    """With masks from the caption and shown, and without any package of an extra; where one is needed, it is named."""
    photo = photo_folder / "images" / "p0.png"
    sample = ["sample", "--input", photo, "--model", tiny_checkpoint, "--steps", "2", "--device", "cpu"]
    sample += ["--caption", "a red cup", "--output"]
    runs = {
        "plain": [*sample, tmp_path / "plain", "--show-masks", "--save-masks"],
        "sam": [*sample, tmp_path / "sam", "--masks", "sam", "--sam-checkpoint", "sam.pth"],
        "latent": ["train", "latent", "--config", ROOT / "configs" / "mini_latent.yaml"],
        "evaluate": ["evaluate", "--input", photo_folder, "--results", f"a={tmp_path}", "--output", tmp_path / "b"],
    }
    given = json.dumps({name: list(map(str, words)) for name, words in runs.items()})
    code = f"{WITHOUT_EXTRAS}\nimport json\nfor name, words in json.loads(sys.argv[1]).items():\n"
    code += "    print(name, main(words), file=sys.stderr, flush=True)\n"
    run = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    lines = run.stderr.splitlines()
    assert {"plain 0", "sam 2", "latent 2", "evaluate 2"} <= set(lines), run.stderr
    assert (tmp_path / "plain" / "p0.png").is_file() and list((tmp_path / "plain" / "shown_masks").iterdir())
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 3 and 'segment_anything, which is not installed: pip install "lcad[masks]"' in errors[0]
    assert 'pip install "lcad[train]"' in errors[1] and 'pip install "lcad[eval]"' in errors[2]


def test_extras_bring_what_an_error_says():
    distributions = packages_distributions()
    for module, extras in EXTRAS.items():
        for extra in extras:
            brought = names(PROJECT["optional-dependencies"][extra])
            for distribution in distributions.get(module, []):  # gradio need not be installed
                assert distribution.lower().replace("_", "-") in brought, (module, extra)


def test_another_missing_module_is_a_defect():
    def broken() -> int:
        raise ModuleNotFoundError("No module named 'lcad.nothing'", name="lcad.nothing")

    with pytest.raises(ModuleNotFoundError):
        reporting(broken)


def test_every_import_is_declared():
    """Of other packages, in the core or in an extra."""
    declared = names([*PROJECT["dependencies"], "lcad[dev]"])
    distributions = packages_distributions()
    own = {"lcad", "ldm", "scripts", *sys.stdlib_module_names}
    for file in [*(ROOT / "lcad").rglob("*.py"), *(ROOT / "ldm").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in {name.partition(".")[0] for name in modules} - own:
                found = distributions.get(module, [module])
                spelled = {re.sub(r"[-_.]+", "-", name).lower() for name in found}
                assert spelled & (declared | {"pyyaml"}), f"{file}: {module}"  # pyyaml: OmegaConf's


@pytest.mark.parametrize(
    "argv, said", [([], "none was given"), (["paint"], "got 'paint'"), (["train"], "pixel, latent")]
)
def test_a_command_that_is_not_there(argv, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_commands_have_their_modules():
    assert set(cli.commands()) >= set(cli.COMMANDS) - {"web"}
    for name, (module, _) in cli.commands().items():
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
        assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body), name


def test_a_command_without_its_module_is_left_out(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "nowhere", ("lcad.cli.nowhere", "nothing"))
    assert "nowhere" not in cli.commands() and "sample" in cli.commands()


def test_without_the_repository_model_and_photos_are_asked_for(monkeypatch, tmp_path, capsys):
    from lcad.cli import sample_options

    monkeypatch.setattr(sample_options, "MODEL", tmp_path / "mini")
    monkeypatch.setattr(sample_options, "EXAMPLES", tmp_path / "examples")
    for options, asked in ([["--input", "a.png"], "give --model"], [["--model", "m"], "give --input"]):
        with pytest.raises(SystemExit):
            sample_options.parse(options)
        assert asked in capsys.readouterr().err
