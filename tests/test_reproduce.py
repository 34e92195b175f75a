"""The miniature Table 1: which commands it is made of."""

from scripts import reproduce


def test_masks_and_guidance_are_said_in_every_command(tmp_path, monkeypatch):
    """None of its numbers may change with what a script does by default."""
    commands = []

    def note(log, script, *options):
        commands.append([script, *map(str, options)])
        if script == "evaluate.py":
            output = options[options.index("--output") + 1]
            output.mkdir(parents=True)
            (output / "table1.md").write_text("a table")
        return "scenes: a result"

    monkeypatch.setattr(reproduce.Log, "run", note)
    monkeypatch.setattr(reproduce, "ablation_sheet", lambda *_: None)
    photos = tmp_path / "photos"
    photos.mkdir()
    args = ["--model", "m", "--without-slr", "w", "--photos", str(photos), "--work", str(tmp_path / "work")]
    assert reproduce.main([*args, "--output", str(tmp_path / "docs")]) == 0

    def masks_of(script: str) -> list[str]:
        return [command[command.index("--masks") + 1] for command in commands if command[0] == script]

    assert masks_of("evaluate.py") == ["none", "files"], "photos without mask files, scenes with theirs"
    assert masks_of("steer.py") == ["none", "files"]
    sampled = [command for command in commands if command[0] != "render_scenes.py"]
    assert {command[command.index("--guidance") + 1] for command in sampled} == {"1.5"}
    written = (tmp_path / "docs" / "results.md").read_text()
    assert "a table" in written and "W/o ISS is L-CAD itself" in written
