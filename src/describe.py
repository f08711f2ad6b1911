"""Print the model card of a model file, in Markdown: `python src/describe.py models/challenge1.pt`.

Reads the model file, dvc.lock and git (what made it), metrics/ (its scores)

The git commit is not inside the file: rebuilding must give the same bytes at any commit.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from hbn.files import HbnError, existing, read_json
from hbn.networks import inference
from hbn.reporting.repository import git, md5

PURPOSE = {
    "pretrain": "Encoder of EEG windows, pretrained without labels by filling in masked patches.",
    "challenge1": "Response time and absence of a response in contrast change detection, from one EEG window.",
    "challenge2": "Four psychopathology factors of a person (p factor, attention, internalizing, externalizing), "
    "as the mean over EEG windows.",
}
FLOORS = ("age_sex", "mean", "stimulus_history")
USE = """Research on methods: comparing networks, pretraining and deployment on HBN-EEG. Input: the 129 channels of
the HydroCel net in microvolts, average-referenced, filtered as in the section `preprocess`.

- **Not a medical device.** Not for diagnosis, screening or any decision about a person.
- HBN's participants are minors and young adults (5 to 21 years) from one region, many referred for concerns about
  their mental health: scores say nothing about other people, other nets or other amplifiers.
- The factors are questionnaire scores by carers, not diagnoses.
- Keep to HBN's data use terms; do not try to identify participants from recordings or from this file."""
SIMULATED = "- **Trained on simulated data**: its scores say that the pipeline works, nothing about people."


def main(path: str) -> None:
    stem = Path(path).stem
    saved = inference.load_file(path, made_by={"encoder": "pretrain"}.get(stem, stem if stem in PURPOSE else ""))
    name, stage = maker(path, YAML(typ="safe").load(existing("dvc.lock"))["stages"])
    source = saved["source"]
    n_weights = sum(tensor.numel() for tensor in saved["state"].values() if tensor.is_floating_point())
    origin = {
        **{"Data source": source, "Numbers in the file": f"{n_weights:,}", "MD5": md5(path)},
        "Git commit": commit(md5(path)),
        **{f"MD5 of `{dep['path']}`": dep["md5"] for dep in stage["deps"] if not dep["path"].startswith("src/")},
        "Licence": "no restriction (simulated data)" if source == "simulated" else "CC BY-SA 4.0, as the data",
    }
    parts = [
        f"# {stem}\n\n{PURPOSE.get(name, '')}",
        "## Origin\n\n" + bullets(origin),
        "## Stored in the file\n\n" + bullets(dict(flat({k: v for k, v in saved.items() if k != "state"}))),
        f"## Parameters of the stage `{name}`\n\n" + bullets(dict(flat(stage.get("params", {})))),
        "## Scores\n\n" + "\n\n".join(map(scores, metrics_files(stage))),
        "## Intended use and limits\n\n" + USE + (f"\n{SIMULATED}" if source == "simulated" else ""),
    ]
    print("\n\n".join(parts))


def maker(path: str, stages: dict) -> tuple[str, dict]:
    """Name and dvc.lock entry of the stage that wrote these very bytes, wherever they lie now."""
    checksum = md5(path)
    for name, stage in stages.items():
        if any(out.get("md5") == checksum for out in stage.get("outs", [])):
            return name, stage
    raise HbnError(
        f"{path} is not what dvc.lock records, so its parameters and scores are not known: "
        "run `dvc checkout` or `dvc repro`, or check out the commit that made it"
    )


def commit(checksum: str) -> str:
    """The last commit whose dvc.lock names the file with this checksum, and so all that made it."""
    if git("ls-tree", "HEAD", "dvc.lock") and checksum in git("show", "HEAD:dvc.lock"):
        return git("log", "-1", "--format=%H", "--", "dvc.lock")
    return "none, for the dvc.lock that names this file is not committed (`dvc repro` or `dvc exp apply` wrote it)"


def metrics_files(stage: dict) -> list[Path]:
    return [Path(out["path"]) for out in stage["outs"] if out["path"].startswith("metrics/")]


def scores(path: Path) -> str:
    """A table of the scores on the test participants, a column per predictor; else the plain numbers."""
    content = read_json(path)
    if "test" not in content:
        return bullets(dict(flat(content)))
    columns = sorted(content["test"], key=lambda name: name in FLOORS)
    table = {name: dict(intervals(content["test"][name])) for name in columns}
    titles = ["score", *(f"{name} (never sees EEG)" if name in FLOORS else name for name in columns)]
    rows = [[score, *(table[name].get(score, "") for name in columns)] for score in table[columns[0]]]
    text = "\n".join("| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows))
    n = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in content.get("n", {}).items())
    return f"Test participants ({n}), with 95 % intervals over participants:\n\n{text}"


def intervals(content: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every score as 'value (low to high)'."""
    for key, value in content.items():
        if "value" in value:
            yield f"{prefix}{key}", f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
        else:
            yield from intervals(value, f"{prefix}{key}.")


def flat(content: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested values by their dotted names; the file names of dvc.lock's parameters are left out."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, prefix if key == "params.yaml" else f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def bullets(facts: dict) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends it without a word
    if len(sys.argv) != 2:
        sys.exit("usage: python src/describe.py models/challenge1.pt")
    try:
        main(sys.argv[1])
    except HbnError as error:
        sys.exit(f"describe.py: {error}")
