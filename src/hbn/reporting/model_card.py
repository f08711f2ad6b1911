"""The model card of a model file: its origin, content, scores, intended use and limits.

The git commit is not inside the file: rebuilding must give the same bytes at any commit.
"""

from collections.abc import Iterator
from pathlib import Path

from hbn.files import HbnError, existing, read_json
from hbn.networks import inference
from hbn.reporting import lock
from hbn.reporting.repository import git, md5
from hbn.reporting.tables import bullets, interval, markdown
from hbn.scoring.names import BASELINES

PURPOSE = {
    "pretrain": "Encoder of EEG windows, pretrained to tell when in a window the events of other tasks are.",
    "challenge1": "Response time and absence of a response in contrast change detection, from one EEG window.",
    "challenge2": "Four psychopathology factors of a person (p factor, attention, internalizing, externalizing), "
    "as the mean over EEG windows.",
}
USE = """Research on methods: comparing networks, pretraining and deployment on HBN-EEG. Input: the 129 channels of
the HydroCel net in microvolts, average-referenced, filtered as in the section `preprocess`.

- **Not a medical device.** Not for diagnosis, screening or any decision about a person.
- HBN's participants are minors and young adults (5 to 21 years) from one region, many referred for concerns about
  their mental health: scores say nothing about other people, other nets or other amplifiers.
- The factors are questionnaire scores by carers, not diagnoses.
- Keep to HBN's data use terms; do not try to identify participants from recordings or from this file."""
SIMULATED = "- **Trained on simulated data**: its scores say that the pipeline works, nothing about people."


def card(path: str) -> str:
    """The model card in Markdown; HbnError if dvc.lock does not record the file."""
    stem = Path(path).stem
    saved = inference.load_file(path, made_by={"encoder": "pretrain"}.get(stem, stem if stem in PURPOSE else ""))
    existing(lock.LOCK)
    name, stage = maker(path, lock.read_lock())
    source = saved["source"]
    n_weights = sum(tensor.numel() for tensor in saved["state"].values() if tensor.is_floating_point())
    origin = {
        **{"Data source": source, "Numbers in the file": f"{n_weights:,}", "MD5": md5(path)},
        "Git commit": commit(md5(path)),
        **{f"MD5 of `{dep['path']}`": dep["md5"] for dep in stage["deps"] if not dep["path"].startswith("src/")},
        "Licence": "no restriction (simulated data)" if source == "simulated" else "CC BY-SA 4.0, as the data",
    }
    stored = {key: value for key, value in saved.items() if key != "state"}
    contents = [read_json(out["path"]) for out in stage["outs"] if out["path"].startswith("metrics/")]
    parts = [
        f"# {stem}\n\n{PURPOSE.get(name, '')}",
        "## Origin\n\n" + bullets(origin),
        "## Stored in the file\n\n" + bullets(dict(flat(stored))),
        f"## Parameters of the stage `{name}`\n\n" + bullets(dict(flat(stage.get("params", {})))),
        "## Scores\n\n" + "\n\n".join(map(scores, contents)),
        *(text for content in contents for text in differences(content)),
        "## Intended use and limits\n\n" + USE + (f"\n{SIMULATED}" if source == "simulated" else ""),
    ]
    return "\n\n".join(parts)


def maker(path: str, stages: lock.Stages) -> tuple[str, dict]:
    """Name and dvc.lock entry of the stage that wrote these bytes, wherever the file lies now."""
    checksum = md5(path)
    for name, stage in stages.items():
        if any(out.get("md5") == checksum for out in stage.get("outs", [])):
            return name, stage
    raise HbnError(
        f"{path} is not what dvc.lock records, so its parameters and scores are not known: "
        "run `dvc checkout` or `dvc repro`, or check out the commit that made it"
    )


def commit(checksum: str) -> str:
    """The last commit of dvc.lock, if that names the file with this checksum; else why there is none."""
    if git("ls-tree", "HEAD", "dvc.lock") and checksum in git("show", "HEAD:dvc.lock"):
        return git("log", "-1", "--format=%H", "--", "dvc.lock")
    return "none, for the dvc.lock that names this file is not committed (`dvc repro` or `dvc exp apply` wrote it)"


def scores(content: dict) -> str:
    """A table of the scores on the test participants, a column per predictor; else the plain numbers."""
    if "test" not in content:
        return bullets(dict(flat(content)))
    columns = sorted(content["test"], key=lambda name: name in BASELINES)
    table = {name: dict(intervals(content["test"][name])) for name in columns}
    titles = ["score", *(f"{name} (never sees EEG)" if name in BASELINES else name for name in columns)]
    rows = [[score, *(table[name].get(score, "") for name in columns)] for score in table[columns[0]]]
    n = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in content.get("n", {}).items())
    return f"Test participants ({n}), with 95 % intervals over participants:\n\n{markdown(titles, rows)}"


def differences(content: dict) -> Iterator[str]:
    """Sections on 'comparisons' and 'groups', as scoring.comparison and scoring.groups make them, where they exist."""
    if comparisons := content.get("comparisons"):
        rows = [(name, interval(row), row.get("verdict", "not defined")) for name, row in comparisons.items()]
        titles = ("first over second, score", "difference", "after Holm's correction")
        yield "## Compared\n\n" + markdown(titles, rows)
    if groups := content.get("groups"):
        rows = [
            (grouping, name, row["n"]["participants"], score, interval(row) or row["reason"])
            for grouping, by_score in groups.items()
            for score, by_name in by_score.items()
            for name, row in by_name.items()
        ]
        yield "## By group\n\n" + markdown(("grouping", "group", "participants", "score", "value"), rows)


def intervals(content: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every score by its dotted name as 'value (low to high)'."""
    for key, value in content.items():
        if "value" in value:
            yield f"{prefix}{key}", interval(value)
        else:
            yield from intervals(value, f"{prefix}{key}.")


def flat(content: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested values by their dotted names, without the key 'params.yaml' of dvc.lock."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, prefix if key == "params.yaml" else f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
