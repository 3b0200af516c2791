"""Importing is cheap: fresh interpreters tell what `import hypernodes` and each plugin's package leave unloaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"daft", "dask", "distributed", "modal", "coiled", "ray", "numpy", "pandas", "pyarrow", "opentelemetry", "rich"}
LATE = {"pluggy", "asyncio", "cloudpickle", "importlib.metadata", "concurrent.futures", "multiprocessing"}
PLUGIN_PACKAGES = sorted(
    init.parent.name for init in ROOT.glob("plugins/*/src/hypernodes_*/__init__.py") if init.parent.name.isidentifier()
)
LOADED = "import sys; print(*sorted(sys.modules))"


def modules_after(code: str) -> set[str]:
    """The modules that this code loads, beyond those of a bare interpreter in the same environment."""

    def loaded(before: str) -> set[str]:
        command = [sys.executable, "-c", f"{before}\n{LOADED}"]
        return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split())

    return loaded(code) - loaded("")


def test_the_probe_sees_a_late_import() -> None:
    assert "asyncio" in modules_after("import asyncio")


@pytest.mark.parametrize(
    "code",
    ["import hypernodes", "from hypernodes import LocalBackend, Pipeline, node", "import hypernodes.plugin"],
)
def test_importing_hypernodes_loads_nothing_heavy(code: str) -> None:
    allowed = {"pluggy", "importlib.metadata"} if code.endswith("plugin") else set()  # `hookimpl` is a pluggy marker
    loaded = modules_after(code) & (HEAVY | LATE)
    assert loaded <= allowed, f"`{code}` loads {sorted(loaded - allowed)}"


def test_defining_nodes_and_pipelines_loads_nothing_heavy() -> None:
    code = (
        "from hypernodes import Pipeline, node\n"
        "@node(output_name='y')\n"
        "def double(x: int) -> int:\n"
        "    return 2 * x\n"
        "Pipeline(nodes=[double], name='p')\n"
    )
    assert modules_after(code) & HEAVY == set()
    assert modules_after(code) & {"pluggy", "importlib.metadata"} == set(), "plugins are looked up on first use"


@pytest.mark.parametrize("package", PLUGIN_PACKAGES)
def test_importing_a_plugin_leaves_its_library_alone(package: str) -> None:
    assert modules_after(f"import {package}") & HEAVY == set()


@pytest.mark.parametrize("package", PLUGIN_PACKAGES)
def test_a_manifest_leaves_its_library_alone(package: str) -> None:
    assert modules_after(f"import {package}._plugin") & HEAVY == set()
