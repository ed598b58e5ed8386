"""The README is run: its Python with the output that it shows, its commands, its configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polyvec
from docs import support_table
from polyvec.config import load_configuration

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


def blocks(*kinds: str, text: str = README) -> list[str]:
    return [body for kind, body in BLOCK.findall(text) if kind in kinds]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the repository to the snippets, but in which they may write."""
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_python_prints_what_the_readme_shows(folder: Path) -> None:
    program = "\n".join(blocks("python"))
    assert len(blocks("python")) >= 2
    printed = run([sys.executable, "-c", program], folder)
    assert printed == "".join(blocks("text"))


@pytest.mark.slow
def test_the_commands_run(folder: Path) -> None:
    lines = [
        line.removeprefix("$ ")
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ polyvec")
    ]
    assert len(lines) >= 7
    for line in lines:
        run(["bash", "-c", line], folder)


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        named = re.findall(r"(?:^\$ |`)make ([a-z-]+)", page, re.MULTILINE)
        assert named
        assert set(named) <= targets


def test_the_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    [named] = re.findall(r'pip install "polyvec\[(.*?)\]"', README)
    assert set(named.split(",")) <= set(extras)
    for extra in extras:
        assert f"`{extra}`" in README, f"the README does not name the extra {extra}"


def test_the_configuration_is_valid(folder: Path) -> None:
    [text] = blocks("toml")
    (folder / "polyvec.toml").write_text(text, "utf-8")
    configuration = load_configuration(folder / "polyvec.toml")
    assert configuration.defaults["store"] in configuration.stores


def test_the_support_table_is_up_to_date() -> None:
    assert support_table.with_table(README) == README, "run `make matrix`"
    for adapter in polyvec.adapters().values():
        assert adapter.tested, f"{adapter.name} does not say on which engine it was tested"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)[0] == project["version"]


def test_every_adapter_has_a_page_and_a_compose_service() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "backends").glob("*.md")}
    assert set(polyvec.adapters()) - {"memory"} <= pages


def test_nothing_in_the_project_names_what_it_must_not() -> None:
    """No registry host, no path of a machine, no merge mark."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    forbidden = re.compile("|".join(["pypi" + r"\.org", "/wo" + "rk/", "/ro" + "ot/", "<" * 7 + " "]))
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".json", ".jsonl", ""} and path.is_file():
            assert not forbidden.search(path.read_text("utf-8")), name
