"""What the scripts and the library import. Run as a script, it writes that into dvc.yaml: `make deps`."""

import ast
import re
from pathlib import Path

from clone import REPOSITORY
from ruamel.yaml import YAML

LIBRARY = REPOSITORY / "src/hbn"
STAGES = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
# Modules that a stage reads as text, not by an import: they go into the challenge's zip as they are.
READ_AS_TEXT = {"submission": {"src/hbn/deploy/submission.py"}}


def modules() -> dict[str, Path]:
    """Library modules by dotted name, as 'hbn.data.bids'."""
    paths = (path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts): path for path in paths}


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Other packages and library modules that a file imports anywhere, as 'numpy' or 'hbn.data.bids'."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ".", *(f"{node.module}.{alias.name}" for alias in node.names)}
    library = {name for name in names if name in MODULES}
    return library | {name.split(".")[0] for name in names} - {"hbn"}


def library_modules(path: Path) -> set[str]:
    """Library modules that a file imports itself."""
    return {name for name in imported(path) if name in MODULES}


def closure(path: Path) -> set[str]:
    """Library modules that a file imports, directly or through another module."""
    reached, todo = set(), [path]
    while todo:
        new = library_modules(todo.pop()) - reached
        reached |= new
        todo += [MODULES[name] for name in new]
    return reached


def script(stage: str) -> Path:
    """The script that a stage runs."""
    return REPOSITORY / STAGES[stage]["cmd"].split()[1]


def code_deps(stage: str) -> list[str]:
    """The deps of a stage below src/, in the order of dvc.yaml: its script, then what that imports."""
    library = {MODULES[module].relative_to(REPOSITORY).as_posix() for module in closure(script(stage))}
    return [f"src/{script(stage).name}", *sorted(library | READ_AS_TEXT.get(stage, set()))]


def with_code_deps(text: str, deps: dict[str, list[str]]) -> str:
    """The text of a dvc.yaml in which these are the deps of each stage below src/; all else is as it was."""
    lines, stage, in_deps = [], "", False
    for line in text.splitlines():
        if match := re.fullmatch(r"  (\w+):.*", line):
            stage = match[1]
        if in_deps and not line.startswith("      - "):  # the deps end here
            lines += [f"      - {dep}" for dep in deps[stage]]
            in_deps = False
        if line == "    deps:":
            in_deps = True
        if not (in_deps and line.startswith("      - src/")):
            lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    path = REPOSITORY / "dvc.yaml"
    path.write_text(with_code_deps(path.read_text(), {stage: code_deps(stage) for stage in STAGES}))


if __name__ == "__main__":
    main()
