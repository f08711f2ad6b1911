"""What dvc.yaml declares is what the scripts do: imports, parameters, layers, one definition each."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[1]
LIBRARY = REPOSITORY / "src/hbn"
STAGES = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
# Each module may import only modules to its left.
ORDER = (
    *(
        "files",
        "params",
        "stage",
        "cluster",
        "metrics",
        "bids",
        "events",
        "behaviour",
        "simulator",
        "ceiling",
        "s3",
        "transfer",
        "sources",
    ),
    *("signal", "windows", "splits", "floors", "model", "challenge", "device", "training", "probe", "deploy", "export"),
    *("repository", "experiments", "figures"),
)
NO_TORCH = ORDER[: ORDER.index("model")]
HEAVY = {"mne", "dvc"}


def imported(path: Path) -> set[str]:
    """Top-level names and hbn modules that a file imports anywhere, as 'numpy' or 'hbn.files'."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            if node.module == "hbn":
                names |= {f"hbn.{alias.name}" for alias in node.names}
    return {name if name.startswith("hbn.") else name.split(".")[0] for name in names} - {"hbn"}


def closure(path: Path) -> set[str]:
    """Library modules that a script imports, directly or through another one."""
    found, todo = set(), [path]
    while todo:
        new = {name.split(".")[1] for name in imported(todo.pop()) if name.startswith("hbn.")} - found
        found |= new
        todo += [LIBRARY / f"{name}.py" for name in new]
    return found


def declaration(name: str) -> dict:
    return STAGES[name]


def script(name: str) -> Path:
    return REPOSITORY / declaration(name)["cmd"].split()[1]


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_script_and_the_modules_it_imports(name):
    declared = [dep for dep in declaration(name)["deps"] if dep.startswith("src/")]
    expected = {f"src/hbn/{module}.py" for module in closure(script(name))} | {f"src/{script(name).name}"}
    assert set(declared) == expected
    assert declared == [f"src/{script(name).name}", *sorted(expected - {f"src/{script(name).name}"})]


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


def test_layers_point_downward():
    modules = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)
    for module in modules:
        below = {name.split(".")[1] for name in imported(LIBRARY / f"{module}.py") if name.startswith("hbn.")}
        assert below <= set(ORDER[: ORDER.index(module)]), module


def test_scripts_do_not_import_scripts():
    scripts = {path.stem for path in (REPOSITORY / "src").glob("*.py")}
    for path in (REPOSITORY / "src").glob("*.py"):
        assert not imported(path) & scripts, path


def test_data_stages_never_load_torch_and_training_never_loads_mne_or_dvc():
    for module in NO_TORCH:
        assert "torch" not in imported(LIBRARY / f"{module}.py"), module
    for name in ("fetch", "preprocess", "cache_windows", "assemble"):
        assert "torch" not in imported(script(name))
        assert not closure(script(name)) & {"model", "training", "deploy"}
    for name in ("pretrain", "challenge1"):
        for module in closure(script(name)):
            assert not imported(LIBRARY / f"{module}.py") & HEAVY, module


def test_nrmse_is_defined_once():
    homes = [
        path
        for path in (REPOSITORY / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and "nrmse" in node.name.lower()
    ]
    assert homes == [LIBRARY / "metrics.py"]


def test_loading_is_safe():
    for path in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = ast.unparse(node)
                if call.startswith("torch.load("):
                    assert "weights_only=True" in call, call
                if call.startswith("np.load("):
                    assert "allow_pickle=False" in call, call
