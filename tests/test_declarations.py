"""What dvc.yaml declares is what the scripts do: imports, parameters, layers, one definition each."""

import ast
from pathlib import Path

import pytest
from clone import REPOSITORY
from ruamel.yaml import YAML

LIBRARY = REPOSITORY / "src/hbn"
STAGES = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
# Rooms from the bottom to the top: a module may import only from its own room and from those before it.
ROOMS = ("", "data", "scoring", "simulator", "sources", "networks", "training", "deploy", "reporting")
NO_TORCH = ("", "scoring", "simulator", "sources")
# Put into the zip as they are.
READ_AS_TEXT = {"submission": {"src/hbn/deploy/submission.py"}}
HEAVY = {"mne", "dvc"}


def modules(folder: str = "") -> dict[str, Path]:
    """Library modules below a folder by dotted name, as 'hbn.data.bids'."""
    paths = (path for path in (LIBRARY / folder).rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts): path for path in paths}


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Other packages and library modules that a file imports anywhere, as 'numpy' or 'hbn.data.bids'."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    library = {name for name in names if name in MODULES}
    return library | {name.split(".")[0] for name in names} - {"hbn"}


def library_modules(path: Path) -> set[str]:
    return {name for name in imported(path) if name in MODULES}


def closure(path: Path) -> set[str]:
    """Library modules that a script imports, directly or through another one."""
    found, todo = set(), [path]
    while todo:
        new = library_modules(todo.pop()) - found
        found |= new
        todo += [MODULES[name] for name in new]
    return found


def room(module: str) -> str:
    """The folder of a library module; empty for those at the bottom of the house."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def declaration(name: str) -> dict:
    return STAGES[name]


def script(name: str) -> Path:
    return REPOSITORY / declaration(name)["cmd"].split()[1]


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_script_and_the_modules_it_imports(name):
    declared = [dep for dep in declaration(name)["deps"] if dep.startswith("src/")]
    expected = {MODULES[module].relative_to(REPOSITORY).as_posix() for module in closure(script(name))}
    expected |= READ_AS_TEXT.get(name, set())
    assert declared == [f"src/{script(name).name}", *sorted(expected)]


@pytest.mark.parametrize("name", STAGES)
def test_declared_params_are_those_the_script_reads(name):
    call = next(
        node
        for node in ast.walk(ast.parse(script(name).read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run"
    )
    reads = ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == "reads"))
    assert sorted(declaration(name).get("params", [])) == sorted(reads)


@pytest.mark.parametrize("name", STAGES)
def test_script_states_the_outputs_it_declares(name):
    text = ast.get_docstring(ast.parse(script(name).read_text()))
    for kind in ("outs", "metrics"):
        for out in declaration(name).get(kind, []):
            path = out if isinstance(out, str) else next(iter(out))
            assert path.split("/${item")[0] in text, f"{script(name)} does not mention {path}"


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("src/hbn/simulator/", {"fetch"}),
        ("src/hbn/sources/", {"fetch"}),
        ("src/hbn/training/loop.py", {"pretrain", "challenge1"}),
    ],
)
def test_what_a_change_of_code_reruns(changed, stages):
    """`dvc status` names a stage when a file of its deps has changed."""
    assert {name for name in STAGES if any(dep.startswith(changed) for dep in declaration(name)["deps"])} == stages


def test_rooms_import_only_downward():
    assert {room(module) for module in MODULES} == set(ROOMS)
    for module, path in MODULES.items():
        below = ROOMS[: ROOMS.index(room(module)) + 1]
        assert {room(name) for name in library_modules(path)} <= set(below), module


def test_modules_do_not_import_each_other_in_a_circle():
    for module, path in MODULES.items():
        assert module not in closure(path), module


def test_a_room_says_its_job_and_runs_nothing():
    for path in LIBRARY.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert [type(node) for node in body] == [ast.Expr], path


def test_scripts_do_not_import_scripts():
    scripts = {path.stem for path in (REPOSITORY / "src").glob("*.py")}
    for path in (REPOSITORY / "src").glob("*.py"):
        assert not imported(path) & scripts, path


def test_data_stages_never_load_torch_and_training_never_loads_mne_or_dvc():
    for module, path in MODULES.items():
        assert room(module) not in NO_TORCH or "torch" not in imported(path), module
    for name in ("fetch", "preprocess", "cache_windows", "assemble"):
        for path in (script(name), *(MODULES[module] for module in closure(script(name)))):
            assert "torch" not in imported(path), path
    for name in ("pretrain", "challenge1"):
        for path in (script(name), *(MODULES[module] for module in closure(script(name)))):
            assert not imported(path) & HEAVY, path


def test_the_network_depends_on_torch_alone():
    assert imported(MODULES["hbn.networks.architecture"]) <= {"torch", "math"}


def test_nrmse_is_defined_once():
    homes = [
        path
        for path in (REPOSITORY / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and "nrmse" in node.name.lower()
    ]
    assert homes == [LIBRARY / "scoring/metrics.py"]


def test_loading_is_safe():
    for path in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = ast.unparse(node)
                if call.startswith("torch.load("):
                    assert "weights_only=True" in call, call
                if call.startswith("np.load("):
                    assert "allow_pickle=False" in call, call
