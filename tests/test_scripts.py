"""Scripts beside the package: what they import from it is there, and what they tell apart they tell right."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("experiments/*/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_script_imports_is_there(script: Path) -> None:
    imports = [
        (node.module, name.name)
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "retrofit"
        for name in node.names
    ]
    for module, name in imports:
        there = hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}")
        assert there, f"{module} has no {name}"


@pytest.mark.parametrize("option", sorted(path.stem for path in (ROOT / "conf" / "negatives").glob("*.yaml")))
def test_options_of_negatives_are_told_apart(train_config: Callable[..., dict[str, Any]], option: str) -> None:
    found = importlib.util.spec_from_file_location("compare", ROOT / "experiments" / "negatives" / "compare.py")
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert script.name_of(train_config(f"negatives={option}")) == option
