"""A drawing of the pipeline's stages, and the duration, size and last change of each stage."""

import io
from html import escape
from pathlib import Path

from ruamel.yaml import YAML

from hbn.files import read_json
from hbn.reporting import lock
from hbn.stage import DURATIONS

COLUMN_WIDTH, ROW_HEIGHT, BOX_WIDTH, BOX_HEIGHT = 148, 64, 112, 40  # pixels

Followers = dict[str, set[str]]  # stage -> the stages that read its outputs


def stages(scratch: Path) -> list[dict]:
    """Every stage of dvc.yaml: name, declaration, time of its last run here, size of its outputs, last change.

    The releases of a matrix stage are added up. Unknown values are None.
    """
    locked, changes = lock.read_lock(), lock.last_changes()
    rows = []
    for name, declaration in YAML(typ="safe").load(Path("dvc.yaml"))["stages"].items():
        parts = [part for part in locked if part.split("@")[0] == name]
        times_s = [
            read_json(path)["duration_s"]
            for path in (scratch / DURATIONS).glob("*.json")
            if path.stem.split("@")[0] == name
        ]
        sizes = [out.get("size", 0) for part in parts for out in locked[part].get("outs", [])]
        committed = [changes[part] for part in parts if part in changes]
        rows.append(
            {
                "name": name,
                "declaration": _as_text(name, declaration),
                "duration_s": sum(times_s) if times_s else None,
                "bytes": sum(sizes) if parts else None,
                "changed": max(committed, key=lambda change: change[1]) if len(committed) == len(parts) > 0 else None,
            }
        )
    return rows


def drawing(followers: Followers) -> str:
    """The stages as SVG, from left to right; the releases of a matrix stage share a box.

    Lines connect neighbouring columns only, so every stage has a line from the last stage for which it waits. The
    declaration of a stage names its other inputs.
    """
    releases: dict[str, list[str]] = {}
    after: Followers = {}
    for name, following in followers.items():
        base, _, item = name.partition("@")
        releases.setdefault(base, []).extend([item] if item else [])
        after.setdefault(base, set()).update(follower.split("@")[0] for follower in following)
    place, box = _places(after)
    columns = depths(after)
    parts = []
    for name, following in after.items():
        for other in sorted(follower for follower in following if columns[follower] == columns[name] + 1):
            (x0, y0), (x1, y1) = place[name], place[other]
            x0, y0, y1 = x0 + BOX_WIDTH, y0 + BOX_HEIGHT / 2, y1 + BOX_HEIGHT / 2
            half = (x0 + x1) / 2
            parts.append(f'<path d="M{x0} {y0} C{half} {y0} {half} {y1} {x1} {y1}"/>')
    for name, (x, y) in place.items():
        middle = x + BOX_WIDTH / 2
        parts.append(
            f'<g class="stage" data-name="{escape(name)}">'
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"/>'
            f'<text x="{middle}" y="{y + 17}" font-size="13">{escape(name)}</text>'
            f'<text x="{middle}" y="{y + 32}" font-size="10">{escape(_short(releases[name]))}</text></g>'
        )
    order = escape(", ".join(sorted(after, key=columns.__getitem__)))
    return f'<svg viewBox="{box}" role="img" aria-label="The stages in their order: {order}">{"".join(parts)}</svg>'


def depths(after: Followers) -> dict[str, int]:
    """The column of each stage: the length of the longest path to it."""
    depth = dict.fromkeys(after, 0)
    for _ in after:  # no path is longer than the number of stages
        for name, following in after.items():
            for other in following:
                depth[other] = max(depth[other], depth[name] + 1)
    return depth


def _places(after: Followers) -> tuple[dict[str, tuple[int, int]], str]:
    """The upper left corner of each stage's box, and the view box around all."""
    levels: dict[int, list[str]] = {}
    for name, level in depths(after).items():
        levels.setdefault(level, []).append(name)
    tallest = max(map(len, levels.values()), default=1)
    place = {
        name: (level * COLUMN_WIDTH + 1, round(((tallest - len(names)) / 2 + i) * ROW_HEIGHT) + 20)
        for level, names in levels.items()
        for i, name in enumerate(names)
    }
    return place, f"0 0 {max(levels, default=0) * COLUMN_WIDTH + BOX_WIDTH + 2} {tallest * ROW_HEIGHT + 30}"


def _short(items: list[str]) -> str:
    return " ".join(items) if len(items) < 6 else f"{len(items)} releases"


def _as_text(name: str, declaration: dict) -> str:
    stream = io.StringIO()
    YAML().dump({name: declaration}, stream)
    return stream.getvalue()
