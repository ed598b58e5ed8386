"""The wheel, installed into an environment of its own, with an outside adapter beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "polyvec-sqlite"


def run(*command: object, folder: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", folder, ROOT, folder=folder)
    [built] = folder.glob("polyvec-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel and the outside adapter, and nothing of the repository."""
    folder = tmp_path_factory.mktemp("environment")
    run(
        sys.executable,
        "-m",
        "uv",
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        folder / "env",
        folder=folder,
    )
    python = folder / "env" / "bin" / "python"
    install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python)
    run(*install, "-c", ROOT / "constraints.txt", f"{wheel}[testing]", EXAMPLE, folder=folder)
    return python


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "polyvec",
        "polyvec_adapters",
    }
    for name in ("polyvec/py.typed", "polyvec_adapters/py.typed", "polyvec/testing/contract/__init__.py"):
        assert name in names


def test_an_outside_adapter_is_found_and_passes_the_contract(python: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    printed = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", folder=tmp_path)
    assert " passed" in printed
    assert "skipped" not in printed


def test_the_command_works_without_drivers(python: Path, tmp_path: Path) -> None:
    polyvec = python.parent / "polyvec"
    printed = run(polyvec, "check", "--store", "sqlite:./notes.db", folder=tmp_path)
    assert "ok     filters" in printed
    assert 'pip install "polyvec[qdrant]"' in run(polyvec, "backends", folder=tmp_path)
    done = subprocess.run(
        [polyvec, "count", "--store", "chroma:./x"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "polyvec[chroma]"' in done.stderr
