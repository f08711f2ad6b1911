"""README.md and docs/ are true: links lead somewhere, names exist, numbers and pictures are those of the results."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from clone import REPOSITORY
from ruamel.yaml import YAML

from hbn import params
from hbn.files import HbnError
from hbn.reporting import errors, lock
from hbn.reporting.made_text import filled
from hbn.reporting.pictures import COLOURS, MODEL, PICTURES, SCALP
from hbn.reporting.repository import ignored

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix() for pattern in ("*.md", "docs/*.md") for path in REPOSITORY.glob(pattern)
)
MADE_BY = "out of date: run `make figures`"
NAME_OF_FILE = re.compile(
    r"(src|tests|benchmarks|docs|metrics|plots|sweeps|\.github)/[\w./-]+|[\w-]+\.(md|toml|yaml|cff|sh)|requirements[\w-]*\.txt"
)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def text(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as forges and the site make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', prose(page)):
        address = "".join(link)
        if re.match("https?://", address):
            continue
        name, _, anchor = address.partition("#")
        target = ((REPOSITORY / page).parent / name).resolve() if name else REPOSITORY / page
        assert target.exists(), address
        assert not anchor or anchor in anchors(target.relative_to(REPOSITORY).as_posix()), address


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_parameters_and_targets_that_are_named_exist(page):
    targets = set(re.findall(r"^([a-z0-9]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z0-9]+)", text(page), re.MULTILINE)) <= targets
    for name in re.findall(r"`([^`\n]+)`", prose(page)):
        if NAME_OF_FILE.fullmatch(name):
            assert (REPOSITORY / name).exists() or ignored([name]), name
        section, _, key = name.partition(".")
        if section in params.Params.model_fields and re.fullmatch(r"[a-z_0-9]+( .*)?", key):
            fields = params.Params.model_fields[section].annotation.model_fields
            assert key.split(" ")[0] in fields, name


@pytest.mark.parametrize("page", PAGES)
def test_made_parts_are_up_to_date(page):
    assert filled(text(page), REPOSITORY) == text(page), MADE_BY


@pytest.mark.parametrize("page", PAGES)
def test_values_in_commands_and_settings_are_accepted(page):
    """Those of commands that no test can run as well; of a sweep, the first value."""
    yaml = YAML(typ="safe")
    changes = [
        dict(option.split("=", 1) for option in shlex.split(line, comments=True) if re.match(r"\w+\.\w+=", option))
        for line in text(page).splitlines()
        if line.startswith("dvc exp run ")
    ]
    changes += [
        {f"{section}.{key}": value for section, keys in yaml.load(block).items() for key, value in keys.items()}
        for block in re.findall(r"```yaml\n(.*?)```", text(page), re.DOTALL)
    ]
    for change in changes:
        values = yaml.load(text("params.yaml"))
        for name, value in change.items():
            section, _, key = name.partition(".")
            values[section][key] = yaml.load(re.sub(r"^(\w+),.*", r"\1", value)) if isinstance(value, str) else value
        if change.get("model.size") != "nano":  # which docs/extending.md adds
            params.Params.model_validate(values)


def test_make_figures_mends_what_is_out_of_date(workspace):
    """In a copy without a model, so that the scalp maps stay as they are."""
    for name in ("metrics", "plots", "benchmarks/results", "docs", "src"):
        shutil.copytree(REPOSITORY / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "params.yaml", workspace)
    stale = text("README.md").replace("| training mean |", "| stale |")
    (workspace / "README.md").write_text(stale, encoding="utf-8")
    (workspace / "docs/figures/pipeline.svg").unlink()
    done = subprocess.run([sys.executable, "src/figures.py"], check=True, capture_output=True, text=True)
    assert "README.md is written anew" in done.stdout
    assert "docs/figures/scalp.svg stays as it is" in done.stdout
    assert (workspace / "README.md").read_text(encoding="utf-8") == text("README.md")
    assert (workspace / "docs/figures/pipeline.svg").read_text() == text("docs/figures/pipeline.svg")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_up_to_date(name):
    """Compared as text; numbers may differ by rounding."""
    known, drawn = text(f"docs/figures/{name}.svg"), PICTURES[name](REPOSITORY)
    assert NUMBER.sub("0", drawn) == NUMBER.sub("0", known), MADE_BY
    numbers = (list(map(float, NUMBER.findall(svg))) for svg in (drawn, known))
    assert next(numbers) == pytest.approx(next(numbers), abs=0.1), MADE_BY


def test_scalp_maps_are_of_the_present_model():
    outs = [out for stage in lock.read_lock().values() for out in stage.get("outs", [])]
    (md5,) = [out["md5"] for out in outs if out["path"] == MODEL.as_posix()]
    assert f"<desc>{MODEL} {md5}</desc>" in SCALP.read_text(), MADE_BY


@pytest.mark.parametrize("name", [*PICTURES, "scalp"])
def test_a_picture_is_small_and_has_a_dark_form(name):
    path = REPOSITORY / f"docs/figures/{name}.svg"
    assert path.stat().st_size < 100_000
    style, _, rest = path.read_text().partition("</style>")
    assert "prefers-color-scheme:dark" in style
    assert not [light for light, _ in COLOURS.values() if light in rest]
    assert "var(--ink)" in rest


def test_the_readme_is_short_and_every_picture_is_shown():
    assert len(text("README.md").splitlines()) <= 120
    shown = {name for page in PAGES for name in re.findall(r"figures/(\w+)\.svg", prose(page))}
    assert shown == {*PICTURES, "scalp"} == {path.stem for path in (REPOSITORY / "docs/figures").iterdir()}


def test_every_page_is_in_the_list_of_the_docs():
    names = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", text("docs/README.md"))) == names
    assert set(re.findall(r"([\w-]+\.md)$", text("mkdocs.yml"), re.MULTILINE)) == names | {"README.md"}


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    html = (tmp_path / "site/troubleshooting.html").read_text()
    assert 'id="every-error"' in html
    assert not re.findall(r'<(?:script|img)[^>]* src="https?://|<link[^>]* href="https?://', html), "needs the network"


def test_every_error_says_what_to_do():
    raised = errors.raised(REPOSITORY / "src")
    assert len(raised) > 100
    assert [error.message for error in raised if not error.advice] == []
    assert {error.reason for error in raised} - {""} == set(errors.REASONS)
    unused = [start for start in errors.ADVICE if not any(error.message.startswith(start) for error in raised)]
    assert unused == []


def test_errors_are_read_from_the_source(tmp_path):
    (tmp_path / "predict.py").write_text(
        "def f(path, many):\n"
        "    detail = f'{path.name} is empty; give another'\n"
        "    raise HbnError(detail)\n"
        "def g(bads):\n"
        "    raise UnusableRecording('bad_channels', f'{len(bads)} of 129 are bad')\n"
    )
    first, second = errors.raised(tmp_path)
    assert (first.message, first.advice, first.reason) == ("<name> is empty; give another", "Give another.", "")
    assert (second.message, second.reason) == ("<bads> of 129 are bad", "bad_channels")


def test_an_unknown_part_is_refused():
    with pytest.raises(HbnError, match="weather"):
        filled("<!-- made: weather -->\n<!-- /made -->", REPOSITORY)


def test_the_example_is_predicted_in_the_form_of_a_release(workspace):
    shutil.copy(REPOSITORY / "params.yaml", workspace)
    script = [sys.executable, str(REPOSITORY / "src/example.py"), "data/example"]
    assert "predict.py data/example/sub-" in subprocess.run(script, check=True, capture_output=True, text=True).stdout
    (recording,) = workspace.glob("data/example/sub-*/eeg/*_eeg.bdf")
    assert recording.stat().st_size < 10_000_000
    events = recording.with_name(recording.name.replace("_eeg.bdf", "_events.tsv")).read_text()
    assert len(re.findall(r"\t(?:left|right)_target\t", events)) == 24
