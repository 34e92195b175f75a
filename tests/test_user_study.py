"""User studies through the script's main: page, key, votes in a real browser, table, and errors."""

import base64
import csv
import io
import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lcad.evaluation.tables import PAPER
from lcad.evaluation.user_study import GROUND_TRUTH, read_key
from scripts import user_study
from tests.conftest import random_photo

METHODS = ("SecretAlpha", "SecretBeta", "Ours")
HOSTILE = 'a "red" cup</script><img src=x onerror="document.title=1"><!--<script>\u2028{{ 7 * 7 }}'
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture
def results(tmp_path) -> Path:
    """Folders of results of three methods and of real photos, twelve each, and captions for eleven."""
    for folder in (*METHODS, "real"):
        (tmp_path / folder).mkdir()
        for i in range(12):
            note = PngInfo()
            note.add_text("comment", f"made by {folder}")  # which Pillow would copy into a JPEG
            seed = 100 * i + (*METHODS, "real").index(folder)
            random_photo(seed).save(tmp_path / folder / f"photo{i}.png", pnginfo=note)
    captions = {f"photo{i}.jpg": [f"the red cup {i}", f"the cup {i}"] for i in range(10)} | {"photo10.jpg": HOSTILE}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return tmp_path


def build(results: Path, experiment: str = "corresponding", *options: str, output: str = "study") -> int:
    source = ["--captions", "captions.json"] if experiment == "corresponding" else ["--real", "real"]
    methods = [part for name in METHODS for part in ("--method", f"{name}={results / name}")]
    return user_study.main(
        ["build", experiment, *methods, source[0], str(results / source[1]), "--samples", "11"]
        + ["--output", str(results / output), *options]
    )


def read_study(folder: Path) -> tuple[str, dict, dict]:
    """The page, the data in it, and the key."""
    page = (folder / "study.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL).group(1)
    return page, json.loads(data), json.loads((folder / "key.json").read_text())


def write_votes(folder: Path, volunteer: str, choices: list[str], saved: str = "2024-01-01T00:00:00.000Z") -> Path:
    """A vote file as the page saves it: for each sample, in the key's order, the image of a chosen method."""
    key = read_key(folder / "key.json")
    votes = {
        sample: next(image for image, method in entry["images"].items() if method == choice)
        for (sample, entry), choice in zip(key.samples.items(), choices, strict=True)
    }
    path = folder / f"votes_{volunteer}{len(list(folder.glob('votes_*')))}.json"
    path.write_text(json.dumps({"study": key.study, "volunteer": volunteer, "saved": saved, "votes": votes}))
    return path


def tally(*keys: Path, votes: list[Path], output: Path | None = None) -> int:
    argv = ["tally", "--key", *map(str, keys), "--votes", *map(str, votes)]
    return user_study.main(argv + (["--output", str(output)] if output else []))


def test_the_seed_decides_everything(results):
    for output, seed in (("study", "3"), ("same", "3"), ("other", "4")):
        assert build(results, "corresponding", "--samples", "6", "--seed", seed, output=output) == 0
    for name in ("study.html", "key.json"):
        assert (results / "study" / name).read_bytes() == (results / "same" / name).read_bytes()
    photos = [
        [entry["photo"] for entry in read_study(results / output)[2]["samples"].values()]
        for output in ("study", "other")
    ]
    assert photos[0] != photos[1] and all(len(set(chosen)) == 6 for chosen in photos)


def test_every_method_is_in_every_place_equally_often(results):
    assert build(results, "reality", "--samples", "12") == 0
    _, data, key = read_study(results / "study")
    makers = [[key["samples"][s["id"]]["images"][image["id"]] for image in s["images"]] for s in data["samples"]]
    assert Counter((place, m) for row in makers for place, m in enumerate(row)) == {
        (place, method): 3 for place in range(4) for method in (*METHODS, GROUND_TRUTH)
    }
    assert len(set(map(tuple, makers))) > 4, "more than one cycle of places"


def test_the_page_names_nothing_and_loads_nothing(results):
    assert build(results, "reality", "--dataset", "Multi-instance") == 0
    page, data, key = read_study(results / "study")
    pictures = [image["src"].partition("base64,") for sample in data["samples"] for image in sample["images"]]
    raw = [base64.b64decode(data) for _, _, data in pictures]
    for name in (*METHODS, "photo", "real/", "made by", GROUND_TRUTH, "Multi-instance", "L-CAD", "lcad"):
        assert name not in re.sub('"src": "[^"]*"', "", page)
        assert not any(name.encode() in data for data in raw)
    assert key["methods"] == [*METHODS, GROUND_TRUTH]
    assert {start for start, _, _ in pictures} == {"data:image/jpeg;"}
    assert all(Image.open(io.BytesIO(data)).size == (48, 40) for data in raw)
    assert not re.search(r"https?:|//\w+\.|(src|href)=(?!\"data:)", page)


def test_captions_stay_text(results):
    assert build(results) == 0
    page, data, key = read_study(results / "study")
    captions = {key["samples"][sample["id"]]["photo"]: sample["caption"] for sample in data["samples"]}
    assert captions["photo10"] == " ".join(HOSTILE.split())
    assert all(captions[f"photo{i}"] == f"the red cup {i}" for i in range(10))
    assert "<img" not in page and "<!--" not in page and page.count("<script") == page.count("</script>") == 2


def test_shares_and_intervals_beside_the_papers(results, capsys):
    assert build(results, "corresponding", "--samples", "10") == 0
    assert build(results, "reality", "--samples", "10", "--dataset", "Multi|instance", output="real_study") == 0
    study, real = results / "study", results / "real_study"
    write_votes(study, "a", ["Ours"] * 7 + ["SecretBeta"] * 3)
    write_votes(study, "b", ["Ours"] * 3 + ["SecretBeta"] * 7, saved="2024-01-01")  # replaced by the next
    write_votes(study, "b", ["Ours"] * 9 + ["SecretBeta"] * 1, saved="2024-01-02")
    write_votes(real, "a", [GROUND_TRUTH] * 5 + ["SecretAlpha"] * 5)
    capsys.readouterr()
    assert tally(study / "key.json", real / "key.json", votes=[study, real], output=results / "table") == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: ") and err.count("\n") == 1 and "votes_b1.json: not counted" in err
    # Wilson, k of n = 16 of 20, z = 1.95996: (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2/4)) / (n + z^2)
    assert "| Ours | 16 of 20 | 80.00 % | 58.40 to 91.93 % | 41.44 % | 44.04 % |" in out
    assert "| SecretAlpha | 0 of 20 | 0.00 % | 0.00 to 16.11 % |  |  |" in out
    assert "| Ground truth | 5 of 10 | 50.00 % | 23.66 to 76.34 % | 21.44 % | 25.96 % |" in out
    assert "| Ours | 0 of 10 | 0.00 % | 0.00 to 27.75 % |  |  |" in out, "in the reality experiment it is Ours*"
    assert out == (results / "table" / "table2.md").read_text()
    with (results / "table" / "table2.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and rows[2]["share"] == "80.0" and rows[2]["paper: Multi-instance"] == "44.04"
    assert rows[3]["dataset"] == "Multi|instance"


def test_the_papers_table_adds_up():
    rows = PAPER["table2"]
    sums = Counter()
    for row in rows:
        sums[row["experiment"], row["dataset"]] += row["value"]
    assert len(rows) == 30 and all(total == pytest.approx(100) for total in sums.values()) and len(sums) == 4


def error_of(capsys, status: int) -> str:
    err = capsys.readouterr().err
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_what_build_refuses(results, capsys):
    assert "--samples 12: expected 1 to 11" in error_of(capsys, build(results, "corresponding", "--samples", "12"))
    assert "--real is given" in error_of(capsys, build(results, "corresponding", "--real", str(results / "real")))
    captions = str(results / "captions.json")
    assert "--captions is given" in error_of(capsys, build(results, "reality", "--captions", captions))
    for method in ("Ours=elsewhere", "nameless", f"{GROUND_TRUTH}=real"):
        assert f"--method '{method}'" in error_of(capsys, build(results, "reality", "--method", method))
    assert "nowhere: no such" in error_of(capsys, build(results, "reality", "--method", "new=nowhere"))
    assert build(results) == 0
    assert "another study" in error_of(capsys, build(results, "corresponding", "--seed", "1"))
    (results / "Ours" / "photo3.png").rename(results / "Ours" / "photo3.jpg")
    random_photo(3, 40, 40).save(results / "Ours" / "photo3.jpg")
    assert "photo3.jpg: 40x40 pixels, expected 48x40" in error_of(capsys, build(results))
    shutil.copy(results / "real" / "photo3.png", results / "Ours")
    assert "same stem" in error_of(capsys, build(results))
    for path in (results / "Ours").glob("photo3.*"):
        path.unlink()
    assert "Ours has no image of 1 of 11 photos, such as 'photo3'" in error_of(capsys, build(results))
    (results / "captions.json").write_text('{"unheard_of.png": "a cup"}')
    assert "has a caption" in error_of(capsys, build(results))


def test_what_tally_refuses(results, capsys):
    assert build(results) == 0 and build(results, "reality", output="other") == 0
    study, key = results / "study", results / "study" / "key.json"
    assert "no votes for this study" in error_of(capsys, tally(key, votes=[study]))
    good = json.loads(write_votes(study, "a", ["Ours"] * 11).read_text())
    bad = study / "votes_bad.json"
    sample, *others = good["votes"]
    image, foreign = good["votes"][sample], good["votes"][others[0]]
    for content, message in (
        ("{", "not readable as JSON"),
        (json.dumps([1]), "got [1], expected"),
        (json.dumps(good | {"volunteer": 7}), "'volunteer': 'int'"),
        (json.dumps(good | {"votes": {sample: image, "new": image}}), "votes on 1 of 11 samples and 1 unknown"),
        (json.dumps(good | {"votes": good["votes"] | {sample: foreign}}), f"got a vote for '{foreign}', expected"),
        (json.dumps(good | {"votes": good["votes"] | {sample: [image]}}), "got a vote for ["),
    ):
        bad.write_text(content)
        error = error_of(capsys, tally(key, votes=[study]))
        assert message in error and "votes_bad.json" in error
    bad.unlink()
    foreign_file = write_votes(results / "other", "a", ["Ours"] * 11)
    assert f"{foreign_file}: votes for study" in error_of(capsys, tally(key, votes=[study, foreign_file]))
    assert "no such file" in error_of(capsys, tally(key, votes=[results / "missing.json"]))
    assert "not a key.json" in error_of(capsys, tally(foreign_file, votes=[study]))


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
def test_voting_in_a_browser(results, capsys):
    webdriver = pytest.importorskip("selenium.webdriver")
    assert build(results) == 0
    _, data, key = read_study(results / "study")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=390,800"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(results / "downloads")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        vote_through(browser, (results / "study" / "study.html").as_uri(), data["samples"])
        log = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    finally:
        browser.quit()
    requests = {e["params"]["request"]["url"] for e in log if e["method"] == "Network.requestWillBeSent"}
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    (file,) = (results / "downloads").glob("votes_*.json")
    votes = json.loads(file.read_text())["votes"]
    expected = {s["id"]: s["images"][0]["id"] for s in data["samples"]}
    assert votes == expected | {data["samples"][1]["id"]: data["samples"][1]["images"][2]["id"]}
    assert tally(results / "study" / "key.json", votes=[results / "downloads"]) == 0
    ours = sum(key["samples"][sample]["images"][image] == "Ours" for sample, image in votes.items())
    assert f"| Ours | {ours} of 11 |" in capsys.readouterr().out


def vote_through(browser, url: str, samples: list[dict]) -> None:
    """Vote for the first image, by mouse and by key in turn; for the second sample go back and take the third image."""
    count = len(samples)

    def find(selector: str) -> list:
        return browser.find_elements("css selector", selector)

    def press(key: str) -> None:
        find("body")[0].send_keys(key)

    def reads(text: str) -> bool:
        return find("h1")[0].text.endswith(text)

    browser.get(url)
    for number, sample in enumerate(samples):
        assert reads(f"{number + 1} of {count}") and find("#caption")[0].text == " ".join(sample["caption"].split())
        assert browser.title == "Image study" and not find("[onerror]"), "a caption became markup"
        assert find("#next")[0].get_attribute("disabled")
        if number == 2:
            find("#back")[0].click()
            assert find("#images button")[0].get_attribute("aria-pressed") == "true"
            press("3")
            assert reads("3 of 11")
            browser.refresh()
            assert reads("3 of 11"), "a reload keeps the votes and the place"
        if number % 2:
            press("1")
        else:
            find("#images button")[0].click()
    assert reads("Thank you!") and find("progress")[0].get_attribute("value") == str(count)
    press("\ue012")  # the left arrow
    assert reads(f"{count} of {count}")
    press("\ue014")  # the right one
    browser.refresh()
    assert reads("Thank you!")
    find("#save")[0].click()
    deadline = time.monotonic() + 20
    folder = Path(url.removeprefix("file://")).parents[1] / "downloads"
    while not list(folder.glob("votes_*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
