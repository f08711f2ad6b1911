"""What dvc.yaml declares is what the scripts do: imports, parameters, layers, one definition each."""

import ast

import pytest
from clone import REPOSITORY
from declarations import LIBRARY, MODULES, STAGES, closure, code_deps, imported, library_modules, script, with_code_deps

# Rooms from the bottom to the top: a module may import only from its own room and from those before it.
ROOMS = ("", "data", "scoring", "simulator", "sources", "networks", "training", "deploy", "reporting")
NO_TORCH = ("", "scoring", "simulator", "sources")
HEAVY = {"mne", "dvc"}


def room(module: str) -> str:
    """The folder of a library module; empty for those at the bottom of the house."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_script_and_the_modules_it_imports(name):
    declared = [dep for dep in STAGES[name]["deps"] if dep.startswith("src/")]
    assert declared == code_deps(name), "`make deps` writes them"


def test_make_deps_changes_only_deps_on_code():
    text = "stages:\n  a:  # first\n    deps:\n      - data\n      - src/old.py\n    outs:\n      - src/out\n"
    expected = "stages:\n  a:  # first\n    deps:\n      - data\n      - src/a.py\n    outs:\n      - src/out\n"
    assert with_code_deps(text, {"a": ["src/a.py"]}) == expected
    text = (REPOSITORY / "dvc.yaml").read_text()
    assert with_code_deps(text, {name: code_deps(name) for name in STAGES}) == text


@pytest.mark.parametrize("name", STAGES)
def test_declared_params_are_those_the_script_reads(name):
    call = next(
        node
        for node in ast.walk(ast.parse(script(name).read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run"
    )
    reads = ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == "reads"))
    assert sorted(STAGES[name].get("params", [])) == sorted(reads)


@pytest.mark.parametrize("name", STAGES)
def test_script_states_the_outputs_it_declares(name):
    text = ast.get_docstring(ast.parse(script(name).read_text()))
    for kind in ("outs", "metrics"):
        for out in STAGES[name].get(kind, []):
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
    assert {name for name in STAGES if any(dep.startswith(changed) for dep in STAGES[name]["deps"])} == stages


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
