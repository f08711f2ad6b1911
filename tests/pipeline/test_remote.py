"""The repository's own DVC remote on a real S3 server: what one clone pushed, an empty one restores."""

import copy

import pytest
import s3_server

from hbn.files import sha256

URL = "s3://dvc-remote/hbn"


@pytest.fixture(scope="module")
def pushed(built, tmp_path_factory):
    """A finished build whose products and run-cache are on the remote; the endpoint is committed, the keys are not."""
    folder = tmp_path_factory.mktemp("remote")
    with s3_server.Server(folder) as server:
        clone = built.copy(folder / "clone")
        clone.environment |= s3_server.ADMIN  # the standard AWS chain
        clone("dvc", "remote", "add", "--default", "own", URL)
        clone("dvc", "remote", "modify", "own", "endpointurl", server.url)
        clone.commit("a remote")
        clone("dvc", "push", "--run-cache")
        yield clone


@pytest.fixture
def empty(pushed, tmp_path):
    """A clone of the repository alone: no data, no caches."""
    clone = copy.copy(pushed)
    clone.root = tmp_path / "clone"
    clone.environment = {**pushed.environment, "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache")}
    pushed("git", "clone", "-q", str(pushed.root), str(clone.root))
    for name in ("data", "models", ".dvc/cache", ".scratch"):
        assert not (clone.root / name).exists()
    return clone


def products(clone, *without: str) -> dict[str, str]:
    """SHA-256 of every file of data/ and models/."""
    paths = [path for top in ("data", "models") for path in (clone.root / top).rglob("*") if path.is_file()]
    names = {path.relative_to(clone.root).as_posix(): path for path in paths}
    return {name: sha256(path) for name, path in names.items() if not name.startswith(without)}


def test_pull_restores_everything_but_what_the_source_has_and_nothing_has_to_run(pushed, empty):
    empty("dvc", "pull", "--run-cache", "--allow-missing")
    assert products(empty) == products(pushed, "data/raw/")
    assert empty.ran(empty("dvc", "repro", "--allow-missing")) == set()
    assert empty("git", "status", "--porcelain") == ""
    runs = [sorted(p.name for p in (one.root / ".dvc/cache/runs").rglob("*") if p.is_file()) for one in (empty, pushed)]
    assert runs[0] == runs[1] != []
    (empty.root / "dvc.lock").unlink()  # then the run-cache alone knows what a stage gave
    output = empty("dvc", "repro", "check_params")
    assert empty.ran(output) == set()
    assert "Stage 'check_params' is cached - skipping run" in output


@pytest.mark.campaign
def test_repro_pull_in_an_empty_clone_fetches_from_the_source_and_computes_nothing(pushed, empty):
    output = empty("dvc", "repro", "--pull")
    assert empty.ran(output) <= {"fetch"}  # the raw data, which are not on the remote: the source has them
    assert products(empty) == products(pushed)
    assert empty("git", "status", "--porcelain") == ""
    assert empty.ran(empty("dvc", "repro")) == set()


def test_the_remote_needs_credentials_and_the_repository_holds_none(pushed, empty, tmp_path):
    (tmp_path / "home").mkdir()
    empty.environment = {k: v for k, v in empty.environment.items() if not k.startswith("AWS_")}
    empty.environment |= {"HOME": str(tmp_path / "home"), "AWS_EC2_METADATA_DISABLED": "true"}
    assert "Unable to locate credentials" in empty("dvc", "pull", "models/encoder.pt", status=1)
    held = "".join(path.read_text() for path in (empty.root / ".dvc").glob("config*"))
    assert URL in held
    assert not any(secret in held for name, secret in s3_server.ADMIN.items() if name != "AWS_DEFAULT_REGION")
