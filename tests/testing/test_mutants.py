"""The contract suite, tested: every mutant must make a test of it fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.mutants import MUTANTS

ROOT = Path(__file__).parents[2]


def run_contract(mutant: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "pytest", "tests/contract/test_contract.py", "-q", "-x", "--no-header"),
        *("--backend", "memory", "--mutant", mutant, *options),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str) -> None:
    done = run_contract(mutant)
    assert done.returncode == 1, f"the contract suite did not catch {mutant}:\n{done.stdout[-2000:]}"
    assert "1 failed" in done.stdout
    assert " error" not in done.stdout.splitlines()[-1], done.stdout[-2000:]


def test_an_unknown_mutant_is_a_usage_error() -> None:
    assert run_contract("NoSuchMutant").returncode == pytest.ExitCode.USAGE_ERROR
