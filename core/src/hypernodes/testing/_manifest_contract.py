"""What every plugin's manifest promises. Inherit `ManifestContract` and give it the fixture `entry_point`."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest

from hypernodes._cache import Cache
from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec
from hypernodes.testing._promises import Promises

__all__ = ["ManifestContract"]

_LOADED = """
import importlib, json, sys
import hypernodes.plugin
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


class ManifestContract(Promises):
    """Promises of a manifest. The fixture `entry_point` gives the name of the plugin's entry point."""

    @pytest.fixture
    def found(self, entry_point: str) -> EntryPoint:
        (found,) = entry_points(group="hypernodes", name=entry_point)
        return found

    @pytest.fixture
    def specs(self, found: EntryPoint) -> list[EngineSpec | BackendSpec]:
        manifest = found.load()
        return [*_called(manifest, "engines"), *_called(manifest, "backends")]

    @pytest.fixture
    def cache_specs(self, found: EntryPoint) -> list[CacheSpec]:
        return list(_called(found.load(), "caches"))

    def test_manifest_loads_nothing_but_itself(self, found: EntryPoint) -> None:
        command = [sys.executable, "-c", _LOADED, found.module]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        own = {"hypernodes", "pluggy", found.module.partition(".")[0], *sys.stdlib_module_names}
        heavy = {name.partition(".")[0] for name in json.loads(shown.stdout)} - own
        assert not heavy, f"importing {found.module} also loads {', '.join(sorted(heavy))}"
        assert shown.stderr == ""

    def test_plugin_is_ready(self, found: EntryPoint) -> None:
        from hypernodes import _registry

        (report,) = [one for one in _registry.plugins() if one.name == found.name]
        assert report.state == "ready", report.error
        assert report.hooks

    def test_specs_describe_engines_and_backends(self, specs: list[Any]) -> None:
        assert all(isinstance(spec, EngineSpec | BackendSpec) for spec in specs)
        assert all(spec.summary for spec in specs), "a spec has a one-line summary"

    def test_every_target_is_a_class_that_can_be_imported(self, specs: list[Any]) -> None:
        for spec in specs:
            assert isinstance(_class_of(spec), type), spec.target

    def test_every_name_is_found_by_users(self, specs: list[Any]) -> None:
        from hypernodes import _registry

        for spec in specs:
            known = (
                _registry.engine_spec(spec.name) if isinstance(spec, EngineSpec) else _registry.backend_spec(spec.name)
            )
            assert known.target == spec.target

    def test_every_class_can_be_imported_from_hypernodes(self, specs: list[Any]) -> None:
        hypernodes = importlib.import_module("hypernodes")
        for spec in specs:
            assert getattr(hypernodes, spec.target.partition(":")[2]) is _class_of(spec)

    def test_spec_says_the_same_as_its_class(self, specs: list[Any]) -> None:
        for spec in specs:
            own = _class_of(spec).spec()
            facts = [name for name in type(spec).__slots__ if name not in ("summary", "distribution")]
            assert {name: getattr(spec, name) for name in facts} == {name: getattr(own, name) for name in facts}

    def test_caches_are_described_and_can_be_imported_from_hypernodes(self, cache_specs: list[Any]) -> None:
        hypernodes = importlib.import_module("hypernodes")
        for spec in cache_specs:
            assert isinstance(spec, CacheSpec)
            assert spec.summary, "a spec has a one-line summary"
            assert issubclass(_class_of(spec), Cache)
            assert getattr(hypernodes, spec.target.partition(":")[2]) is _class_of(spec)


def _called(manifest: Any, hook: str) -> Iterator[Any]:
    function = getattr(manifest, hook, None)
    if function is not None:
        yield from function()


def _class_of(spec: EngineSpec | BackendSpec | CacheSpec) -> Any:
    module, _, name = spec.target.partition(":")
    return getattr(importlib.import_module(module), name)
