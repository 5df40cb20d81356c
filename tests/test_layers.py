"""The arrows conf -> search -> objectives, held on the syntax tree and in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "search": {"torch", "transformers", "safetensors", "paretune"},
    "paretune": {"torch", "transformers", "safetensors"},
    "objectives": {"optuna", "mlflow", "hydra", "omegaconf", "pandas", "search", "paretune"},
}


def imports(file: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_against_the_arrows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    wrong = {str(file.relative_to(ROOT)): imports(file) & FORBIDDEN[package] for file in files}
    assert not {name: found for name, found in wrong.items() if found}


def fresh(code: str) -> set[str]:
    """Top-level packages loaded by ``code`` in a new interpreter."""
    script = f"import sys\n{code}\nprint(','.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(shown.stdout.splitlines()[-1].split(","))


def test_help_loads_neither_torch_nor_mlflow_nor_hydra() -> None:
    loaded = fresh("from search.cli import main\nmain(['--help'])")
    assert not loaded & {"torch", "mlflow", "hydra", "optuna", "pandas"}


def test_every_setting_is_built_and_checked_without_torch() -> None:
    loaded = fresh(
        "from hydra import compose, initialize_config_dir\n"
        "from search.commands.run import CONF, plain\n"
        "from search.config.study_config import build_config\n"
        "with initialize_config_dir(str(CONF), version_base='1.3'):\n"
        "    build_config(plain(compose('config', overrides=['experiment=quickstart'])))"
    )
    assert "optuna" in loaded
    assert not loaded & {"torch", "transformers", "mlflow"}


def test_the_package_for_python_loads_its_names_when_they_are_used() -> None:
    heavy = {"torch", "transformers", "mlflow", "hydra", "optuna", "pandas", "pydantic", "numpy"}
    assert not fresh("import paretune") & heavy
    assert not fresh("import paretune\nassert paretune.search and paretune.open") & {"torch", "transformers", "mlflow"}
