"""The page of all figures: it needs nothing else, and its buttons work in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import torch
from clone import REPOSITORY, Clone

from hbn.data import bids
from hbn.files import write_json
from hbn.networks import architecture, inference
from hbn.reporting import page, pipeline, summary
from hbn.reporting.figures import FIGURES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = REPOSITORY / "node_modules/axe-core/axe.min.js"  # npm install --no-save axe-core
CLICKS = """<script>
const seen = {};
const shown = () => [...document.querySelectorAll("section")].filter(s => getComputedStyle(s).display !== "none");
const visible = () => [...shown()[0].querySelectorAll("tbody tr")].filter(r => getComputedStyle(r).display !== "none");
seen.first = shown().map(s => s.dataset.tab);
const cells = row => [...row.cells].slice(0, 4).map(c => c.textContent);
seen.stages = [...document.querySelectorAll(".stages tbody tr")].map(cells);
seen.declared = [...document.querySelectorAll(".stages pre")].map(p => p.textContent).join("");
const opened = button => { button.click(); return shown().map(s => s.dataset.tab).concat(location.hash); };
seen.tabs = [...document.querySelectorAll("[role=tab]")].map(opened);
const key = name => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
document.querySelector("[role=tab]").focus();
seen.keys = ["ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home"].map(name => {
  key(name);
  const focused = document.activeElement.dataset.tab;
  return shown()[0].dataset.tab === focused && focused;
});
document.querySelector('[role=tab][data-tab="scores"]').click();
seen.rows = visible().length;
shown()[0].querySelectorAll("th button")[2].click();
const values = visible().map(r => r.cells[2].textContent).filter(v => v !== "" && !isNaN(v)).map(Number);
seen.sorted = values.length > 9 && values.every((v, i) => i === 0 || values[i - 1] <= v);
const input = shown()[0].querySelector("input");
input.value = "challenge1 nrmse";
input.dispatchEvent(new Event("input"));
seen.filtered = visible().map(r => r.textContent);
seen.status = shown()[0].querySelector("[role=status]").textContent;
seen.images = [...document.images].map(i => i.naturalWidth);
document.title = JSON.stringify(seen);
</script>"""
CHECK = """<script>
(async () => {
  const violations = [];
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.click();
    for (const violation of (await axe.run(document)).violations)
      violations.push([tab.dataset.tab, violation.id, ...violation.nodes.map(node => node.target.join(" "))]);
  }
  document.title = JSON.stringify(violations);
})();
</script>"""
WIDTHS = """<!DOCTYPE html><title>measuring</title><iframe style="border:0;height:900px"></iframe><script>
const frame = document.querySelector("iframe"), wide = [];
frame.srcdoc = PAGE;
frame.onload = () => {
  for (const width of [390, 1400]) {
    frame.style.width = `${width}px`;
    for (const tab of frame.contentDocument.querySelectorAll("[role=tab]")) {
      tab.click();
      const needed = frame.contentDocument.documentElement.scrollWidth;
      if (needed > width) wide.push([tab.dataset.tab, width, needed]);
    }
  }
  document.title = JSON.stringify(wide);
};
</script>"""


def in_browser(html: str, folder: Path, *options: str) -> list | dict:
    """What the scripts of a page wrote into its title, as JSON, in a browser without a network."""
    (folder / "page.html").write_text(html)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        f"--user-data-dir={folder}/profile",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=60000",
    ]
    command += [*options, "--dump-dom", f"file://{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return json.loads(unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A clone with the results in git and a network, and its page."""
    clone = Clone(tmp_path_factory.mktemp("page") / "clone", {})
    for folder in ("metrics", "plots"):
        shutil.copytree(REPOSITORY / folder, clone.root / folder)
    clone.commit("results")
    encoder = architecture.Encoder(torch.tensor(bids.electrode_positions_m()).float(), 100, 2.0, "tiny", 8, 0.0)
    inference.save(
        clone.root / "models/challenge1.pt", architecture.ResponseTime(encoder, 2.0, 0.5), source="simulated"
    )
    clone(sys.executable, "src/page.py")
    return clone


def test_the_page_needs_nothing_else(written):
    text = (written.root / "report/page.html").read_text()
    links = re.findall(r'(?:src|href|data|action|srcset)="([^"]*)"', text)
    assert len(links) > 8
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"@import|url\(|\bimport\b|fetch\(|XMLHttpRequest", re.sub(r'"data:[^"]*"', "", text))
    assert len(text) < 5_000_000


def test_it_shows_every_figure_and_score(written):
    text = (written.root / "report/page.html").read_text()
    for figure in FIGURES.values():
        assert f'alt="{figure.title}"' in text
    assert {name for names in page.TABS.values() for name in names} == set(FIGURES)
    assert "8 spatial filters" in text
    assert "test.pretrained.pearson_r" in text
    assert written("git", "status", "--porcelain") == ""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_it_works_in_a_browser(written, tmp_path):
    text = (written.root / "report/page.html").read_text()
    seen = in_browser(text.replace("</body>", CLICKS + "</body>"), tmp_path)
    assert seen["first"] == ["summary"]
    assert "cmd: python src/pretrain.py" in seen["declared"]
    assert ["pretrain", "not run here", "none yet", "not committed"] in seen["stages"]  # the clone has no dvc.lock
    names = ["summary", "pipeline", *map(page.identifier, page.TABS), "scalp", "scores", "experiments"]
    assert seen["tabs"] == [[name, f"#{name}"] for name in names]
    assert seen["keys"] == [names[1], names[2], names[-1], names[0], names[-1], names[0]]
    assert seen["rows"] > len(seen["filtered"]) > 3
    assert seen["status"] == f"{len(seen['filtered'])} of {seen['rows']} rows"
    assert all("nrmse" in row for row in seen["filtered"])
    assert seen["sorted"]
    assert len(seen["images"]) == len(page.PICTURES) + len(FIGURES) + 1
    assert all(width > 300 for width in seen["images"])


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_an_address_opens_its_tab_and_nothing_is_wider_than_a_phone(written, tmp_path):
    text = (written.root / "report/page.html").read_text()
    ask = "<script>document.title = JSON.stringify([...document.querySelectorAll('.shown')].map(s => s.id))</script>"
    start = "showWanted();\n</script>"
    assert start in text
    asked = text.replace(start, f"location.hash = 'scores'; {start}{ask}")
    assert in_browser(asked, tmp_path) == ["panel-scores"]
    embedded = json.dumps(text).replace("</", "<\\/")
    assert in_browser(WIDTHS.replace("PAGE", embedded), tmp_path) == []


@pytest.mark.campaign
@pytest.mark.skipif(not CHROMIUM or not AXE.exists(), reason="no Chromium, or no axe-core in node_modules")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing(written, tmp_path, scheme):
    text = (written.root / "report/page.html").read_text()
    checker = f"<script>{AXE.read_text()}</script>{CHECK}"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    assert in_browser(text.replace("</body>", checker + "</body>"), tmp_path, *dark) == []


def test_what_is_missing_is_said(written):
    for folder in ("plots/challenge1", "models"):
        shutil.rmtree(written.root / folder)
    written(sys.executable, "src/page.py")
    text = (written.root / "report/page.html").read_text()
    assert "plots/challenge1/roc.csv not there; run `dvc repro`" in text
    assert "Scalp maps need models/challenge1.pt" in text


def test_a_stage_stands_right_of_all_it_waits_for():
    after = {"c": {"d"}, "a": {"b", "d"}, "b": {"c"}, "d": set()}
    assert pipeline.depths(after) == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_the_summary_is_of_the_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("splits:\n  test_releases: [R5, R6]\n")
    score = {"value": 0.7, "low": 0.6, "high": 0.8}
    rows = {"mean": {"nrmse": score | {"value": 1.1, "high": 1.2}}, "eeg_and_metadata": {"nrmse": score}}
    rows |= {"pretrained": {"nrmse": score, "pearson_r": {}}, "age_sex": {"nrmse": score}}
    write_json("metrics/challenge1.json", {"source": "simulated", "test": rows})
    for release, value in (("R1", 9.0), ("R5", 0.2), ("R6", 0.4)):
        write_json(f"metrics/fetch/{release}.json", {"source": "simulated", "ceiling": {"challenge1_nrmse": value}})
    (panel,) = summary.forest(Path("metrics"))  # no other score has a value
    assert panel["better"] == "lower is better"
    assert [(row["kind"], row["value"]) for row in panel["rows"]] == [
        *(("network", 0.7), ("network", 0.7), ("baseline", 0.7), ("baseline", 1.1), ("ceiling", pytest.approx(0.3)))
    ]
    assert [row["label"] for row in panel["rows"]][1:4] == ["EEG and metadata", "age and sex", "training mean"]
    low, high = panel["axis"]["low"], panel["axis"]["low"] + panel["axis"]["span"]
    assert low < 0.3 < 1.2 < high
    facts = summary.data_facts(Path("metrics"))
    assert facts == {"Data": "simulated", "Releases": "R1, R5, R6"}


def test_stages_have_their_time_size_and_last_change(tmp_path):
    clone = Clone(tmp_path / "clone", {})
    (clone.root / "dvc.yaml").write_text("stages:\n  make:\n    matrix: {r: [a, b]}\n    cmd: x\n  use:\n    cmd: y\n")

    def lock(**sizes: int) -> None:
        entries = {
            name.replace("_", "@"): {"cmd": "x", "outs": [{"path": name, "size": n}]} for name, n in sizes.items()
        }
        (clone.root / "dvc.lock").write_text(json.dumps({"stages": entries}))

    commits = []
    for sizes in ({"make_a": 1}, {"make_a": 1, "make_b": 2, "use": 7}, {"make_a": 1, "make_b": 2, "use": 8}):
        lock(**sizes)
        clone.commit("lock")
        commits.append(clone("git", "rev-parse", "--short", "HEAD").strip())
    for stage, seconds in (("make@a", 1.5), ("make@b", 2), ("makes", 100)):
        write_json(clone.root / f".scratch/durations/{stage}.json", {"duration_s": seconds})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.root)
        make, use = pipeline.stages(Path(".scratch"))
        assert (make["duration_s"], make["bytes"]) == (3.5, 3)
        assert make["changed"][0] in commits[:2]
        assert (use["duration_s"], use["bytes"], use["changed"][0]) == (None, 8, commits[2])
        lock(make_a=5, make_b=2)
        make, use = pipeline.stages(Path(".scratch"))
        assert make["changed"] is None  # not committed yet
        assert use["bytes"] is None


def test_a_stage_leaves_its_time_for_the_page(tmp_path, monkeypatch):
    clone = Clone(tmp_path / "clone", {})
    clone("dvc", "repro", "-q", "check_params")
    monkeypatch.chdir(clone.root)
    by_name = {stage["name"]: stage["duration_s"] for stage in pipeline.stages(Path(".scratch"))}
    assert by_name["check_params"] > 0
    assert by_name["pretrain"] is None


def test_since_the_last_version_tag(tmp_path, monkeypatch):
    clone = Clone(tmp_path / "clone", {})
    monkeypatch.chdir(clone.root)
    assert summary.since_last_tag()["title"].startswith("No version tag yet")
    score = {"test": {"pretrained": {"nrmse": {"value": 0.7, "low": 0.6, "high": 0.8}}}}
    write_json("metrics/challenge1.json", score)
    clone.commit("results")
    clone("git", "tag", "v0.1.0")
    clone("git", "tag", "challenge1@v0.1.0")
    score["test"]["pretrained"]["nrmse"]["value"] = 0.5
    write_json("metrics/challenge1.json", score)
    clone.commit("better")
    news = summary.since_last_tag()
    assert news["title"] == "Since v0.1.0: 1 commit"
    assert [subject for _, _, subject in news["commits"]] == ["better"]
    assert "1 better, 0 worse, 1 of them beyond" in news["scores"]
    assert news["rows"] == [("metrics/challenge1.json", "test.pretrained.nrmse", "0.7", "0.5", "better", "yes")]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (page.duration(4.2), "4 s"),
        (page.duration(130), "2 min"),
        (page.duration(9000), "2.5 h"),
        (page.size(21), "21 B"),
        (page.size(12_300), "12.3 kB"),
        (page.size(4_460_000_000), "4.46 GB"),
    ],
)
def test_times_and_sizes_for_reading(shown, expected):
    assert shown == expected
