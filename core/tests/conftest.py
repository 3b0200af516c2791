"""Fixtures that several test files of core share."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest


class Place:
    """A directory of installed packages, seen by fresh interpreters that see no other: core and what a test adds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.site = path / "site"
        self.site.mkdir()
        for package in ("hypernodes", "pluggy", "cloudpickle"):
            (self.site / package).symlink_to(Path(str(importlib.import_module(package).__file__)).parent)
        self.distribution("hypernodes-core", "0.5.0")

    def distribution(self, name: str, version: str = "1.0", entry_points: str = "") -> None:
        """What an installer leaves behind of a package, without its modules."""
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if entry_points:
            (info / "entry_points.txt").write_text(entry_points)

    def module(self, name: str, source: str) -> None:
        (self.site / f"{name}.py").write_text(textwrap.dedent(source))

    def plugin(self, name: str, source: str, *, distribution: str = "", version: str = "1.0", value: str = "") -> None:
        """A plugin whose manifest is the module `<name>_manifest`, with the names that manifests use at hand."""
        module = f"{name.replace('-', '_')}_manifest"
        self.distribution(
            distribution or f"acme-{name}", version, f"[hypernodes]\n{name} = {value or module}\n[other]\nx = y\n"
        )
        header = "from hypernodes.hookspecs import hookimpl\n"
        header += "from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec\n"
        (self.site / f"{module}.py").write_text(header + textwrap.dedent(source))

    def engine(self, name: str, **options: str) -> None:
        """A sound plugin that brings the engine `name`."""
        self.plugin(name, f"@hookimpl\ndef engines(): return [EngineSpec({name!r}, 'acme.engine:Acme')]", **options)

    def start(self, *arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a fresh interpreter in an empty directory; warnings are errors there too."""
        cwd = self.path / "cwd"
        cwd.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HYPERNODES_", "PYTHON", "COV"))}
        return subprocess.run(
            [sys.executable, "-S", "-W", "error", *arguments],
            cwd=cwd,
            env={**kept, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1", **env},
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
            check=False,
        )

    def python(self, code: str, **env: str) -> Any:
        """What `code` assigned to `answer`, by way of JSON; fails the test when the interpreter fails."""
        script = f"import sys, json\nanswer = None\n{textwrap.dedent(code)}\nprint('\\n' + json.dumps(answer))"
        done = self.start("-c", script, **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
