"""The page of all figures: it needs nothing else, and its buttons work in a real browser."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from clone import REPOSITORY, Clone

import page
from hbn.data import bids
from hbn.networks import architecture, inference

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLICKS = """<script>
const seen = {};
const shown = () => [...document.querySelectorAll("section")].filter(s => getComputedStyle(s).display !== "none");
const visible = () => [...shown()[0].querySelectorAll("tbody tr")].filter(r => getComputedStyle(r).display !== "none");
seen.first = shown().map(s => s.dataset.tab);
document.querySelector('.stage[data-name="pretrain"]').dispatchEvent(new MouseEvent("click", {bubbles: true}));
seen.declared = document.getElementById("declared").textContent;
const opened = button => { button.click(); return shown().map(s => s.dataset.tab); };
seen.tabs = [...document.querySelectorAll("nav button")].map(opened);
document.querySelector('nav button[data-tab="scores"]').click();
seen.rows = visible().length;
shown()[0].querySelectorAll("th")[2].click();
const values = visible().map(r => r.cells[2].textContent).filter(v => v !== "" && !isNaN(v)).map(Number);
seen.sorted = values.length > 9 && values.every((v, i) => i === 0 || values[i - 1] <= v);
const input = shown()[0].querySelector("input");
input.value = "challenge1 nrmse";
input.dispatchEvent(new Event("input"));
seen.filtered = visible().map(r => r.textContent);
seen.images = [...document.images].map(i => i.naturalWidth);
document.title = JSON.stringify(seen);
</script>"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A clone with the results in git and a network, and its page."""
    clone = Clone(tmp_path_factory.mktemp("page") / "clone", {})
    for folder in ("metrics", "plots"):
        shutil.copytree(REPOSITORY / folder, clone.root / folder)
    clone.commit("results")
    encoder = architecture.Encoder(torch.tensor(bids.electrode_positions_m()).float(), 100, 2.0, "tiny", 0.1, 8, 0.0)
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
    for figure in page.FIGURES.values():
        assert f'alt="{figure.title}"' in text
    assert {name for names in page.TABS.values() for name in names} == set(page.FIGURES)
    assert "8 spatial filters" in text
    assert "test.pretrained.pearson_r" in text
    assert written("git", "status", "--porcelain") == ""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_it_works_in_a_browser(written, tmp_path):
    text = (written.root / "report/page.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("</body>", CLICKS + "</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", f"file://{tmp_path}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&amp;", "&"))
    assert seen["first"] == ["pipeline"]
    assert "cmd: python src/pretrain.py" in seen["declared"]
    names = ["pipeline", *map(page.identifier, page.TABS), "scalp", "scores", "experiments"]
    assert seen["tabs"] == [[name] for name in names]
    assert seen["rows"] > len(seen["filtered"]) > 3
    assert all("nrmse" in row for row in seen["filtered"])
    assert seen["sorted"]
    assert len(seen["images"]) == len(page.FIGURES) + 1
    assert all(width > 300 for width in seen["images"])


def test_what_is_missing_is_said(written):
    for folder in ("plots/challenge1", "models"):
        shutil.rmtree(written.root / folder)
    written(sys.executable, "src/page.py")
    text = (written.root / "report/page.html").read_text()
    assert "plots/challenge1/roc.csv not there; run `dvc repro`" in text
    assert "Scalp maps need models/challenge1.pt" in text


def test_a_stage_stands_right_of_all_it_waits_for():
    after = {"c": {"d"}, "a": {"b", "d"}, "b": {"c"}, "d": set()}
    assert page.depths(after) == {"a": 0, "b": 1, "c": 2, "d": 3}
