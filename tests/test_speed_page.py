"""docs/speed.md is made of what was measured, and says so of each row."""

import json

from scripts.studies import write_speed_page


def test_rows_and_machines_are_told(tmp_path):
    (tmp_path / "steps.csv").write_text(
        "scheduler,spacing,steps,calls,lpips,obeyed,spill\n"
        "ddim,leading,50,50,0.2,,\nlcm_lora,-,4,2,0.21,0.6,5\neuler,trailing,8,,,0.5,4\n"
    )
    (tmp_path / "benchmarks").mkdir()
    results = {
        "guided_step": {"seconds": 0.5, "ratio": 1.1},
        "photos_1": {"seconds": 9.0, "ratio": 1, "forwards": 12.5},
    }
    found = {"machine": "a machine", "dtype": "float16", "torch": "2", "photo_steps": 10, "results": results}
    (tmp_path / "benchmarks" / "gpu.json").write_text(json.dumps(found | {"peak_memory": {"steps": 2**30}}))
    (tmp_path / "benchmarks" / "gpu.md").write_text("## bars of it\n")
    assert write_speed_page.main(["--docs", str(tmp_path)]) == 0
    page = (tmp_path / "speed.md").read_text()
    assert "| ddim | leading | 50 | 50.0 | 0.2000 | +0.0 % |  |  |" in page
    assert "| lcm_lora | - | 4 | 2.0 | 0.2100 | +5.0 % | 60 % | 5.0 |" in page
    assert "| euler | trailing | 8 |  |  |  | 50 % | 4.0 |" in page
    assert "### gpu: a machine, float16, torch 2" in page and "| photos_1 | 9.0000 | 1.00 |  | 12.50 |" in page
    assert "steps 1.00." in page and page.endswith("## bars of it\n")
