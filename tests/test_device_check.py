"""The check that a machine with a GPU runs once, here on a CPU with a tiny model."""

import json
import time

import pytest

from scripts.studies import device_check

SMALL = ["--device", "cpu", "--dtype", "float32", "--repeats", "1", "--batch", "2", "--steps", "3", "2", "1"]


@pytest.fixture
def checked(tiny_checkpoint, tmp_path):
    def run(*options: str) -> tuple[int, dict, str]:
        out = tmp_path / "check"
        given = ["--model", str(tiny_checkpoint), "--output", str(out), "--training-batch", "2", *SMALL, *options]
        status = device_check.main(given)
        return status, json.loads((out / "results.json").read_text()), (out / "results.md").read_text()

    return run


def test_every_bar_is_measured(checked):
    status, content, table = checked()
    assert status == 0, content["parts"]
    values = content["values"]
    assert values.keys() == device_check.BARS.keys() and values["difference"] == 0 and values["waits"] == 0
    assert values["two_pass"] > 0 and values["many"] > 0 and values["auto"] == 4
    assert all(part["outcome"] == "done" and part["seconds"] > 0 for part in content["parts"].values())
    assert "| a photo, 3 instance-aware steps (s) | " in table and "nothing captured" in table
    assert table.count("| met |") + table.count("| missed |") == sum(
        bar is not None for _, bar, _ in device_check.BARS.values()
    )


def test_a_part_that_fails_or_takes_too_long_is_named_and_the_next_goes_on(checked, monkeypatch):
    def slow(check):
        check.values["guided"] = 1.3
        time.sleep(30)

    def broken(check):
        raise ValueError("odd\nthing")

    def last(check):
        check.values["one_pass"] = 1.1

    monkeypatch.setattr(device_check, "PARTS", {slow: 1, broken: 1, last: 1})
    begun = time.perf_counter()
    status, content, table = checked()
    assert status == 1 and time.perf_counter() - begun < 20
    outcomes = {name: part["outcome"] for name, part in content["parts"].items()}
    expected = {"slow": "TimeoutError: given up after 1 s", "broken": "ValueError: odd thing", "last": "done"}
    assert outcomes == {"model": "done"} | expected
    assert "| 1.3 | at most 1.25 | missed |" in table and "| 1.1 | at most 1.15 | met |" in table
    assert "not measured" in table and "broken: ValueError: odd thing" in table


def test_no_part_begins_without_time(checked):
    status, content, _ = checked("--seconds", "0")
    assert status == 1 and {part["outcome"] for part in content["parts"].values()} == {"done", "no time left"}
    assert content["values"] == {}
    with pytest.raises(TimeoutError, match="given up after 0 s"), device_check.at_most(0.1):
        time.sleep(10)
    time.sleep(0.2)  # nothing is left of it
