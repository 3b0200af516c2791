"""What the command line lists: engines and backends with every refusal, plugins, and the state of the installation."""

from __future__ import annotations

import json
import platform
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

from hypernodes import _registry as registry
from hypernodes._cli_text import emit, safe, table
from hypernodes._discovery import PluginReport
from hypernodes._errors import PluginError, PluginLoadError
from hypernodes._names import CORE
from hypernodes._pairing import refusal
from hypernodes._specs import BackendSpec, EngineSpec
from hypernodes._version import __version__

__all__ = ["show"]


def show(what: str, as_json: bool, out: TextIO) -> int:
    """Print one listing; returns the exit code, which is 1 only for a doctor that finds something broken."""
    facts = {"engines": _engines, "backends": _backends, "plugins": _plugins, "doctor": _doctor}[what]()
    if as_json:
        emit(out, json.dumps(facts, indent=2))
    else:
        text = {"engines": _matrix, "backends": _matrix, "plugins": _plugin_text, "doctor": _doctor_text}[what](facts)
        emit(out, text)
    return 1 if what == "doctor" and (facts["problems"] or facts["not_loading"]) else 0


def _engines() -> dict[str, Any]:
    backends = registry.backend_specs()
    return {
        "engines": [
            _described(engine)
            | {"requires": sorted(engine.requires), "opens_on": sorted(engine.opens_on)}
            | {"modes": engine.modes, "default_mode": engine.default_mode}
            | {"backends": {name: _pair(backend, engine) for name, backend in backends.items()}}
            for engine in registry.engine_specs().values()
        ],
        "problems": _problems(),
    }


def _backends() -> dict[str, Any]:
    engines = registry.engine_specs()
    return {
        "backends": [
            _described(backend)
            | {"provides": sorted(backend.provides), "modes": backend.modes, "default_engine": backend.default_engine}
            | {"engines": {name: _pair(backend, engine) for name, engine in engines.items()}}
            for backend in registry.backend_specs().values()
        ],
        "problems": _problems(),
    }


def _described(spec: EngineSpec | BackendSpec) -> dict[str, Any]:
    versions = {report.distribution: report.version for report in registry.plugins()} | {CORE: __version__}
    return {
        "name": spec.name,
        "distribution": spec.distribution,
        "version": versions.get(spec.distribution, ""),
        "summary": spec.summary,
        "target": spec.target,
    }


def _pair(backend: BackendSpec, engine: EngineSpec) -> dict[str, Any]:
    try:
        reason = refusal(backend, engine)
    except PluginError as error:
        reason = str(error)
    return {"runs": reason is None, "reason": reason}


def _problems() -> list[str]:
    failed = [f"{report} failed to load: {report.error}" for report in registry.plugins() if report.state == "broken"]
    return failed + registry.conflicts()


def _plugins() -> dict[str, Any]:
    return {"plugins": [_plugin(report) for report in registry.plugins()], "problems": _problems()}


def _plugin(report: PluginReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "distribution": report.distribution,
        "version": report.version,
        "state": report.state,
        "manifest": report.target,
        "file": report.file,
        "hooks": report.hooks,
        "engines": [spec.name for spec in report.engines],
        "backends": [spec.name for spec in report.backends],
        "caches": [spec.name for spec in report.caches],
        "error": report.error,
    }


def _doctor() -> dict[str, Any]:
    reports = registry.plugins()
    not_loading = []
    specs: list[EngineSpec | BackendSpec] = [*registry.engine_specs().values(), *registry.backend_specs().values()]
    for spec in specs:
        try:
            registry.load(spec)
        except PluginLoadError as error:
            story = "".join(traceback.format_exception(error.__cause__ or error))
            not_loading.append({"error": str(error), "traceback": story})
    return {
        "hypernodes": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": _packages([CORE, *(report.distribution for report in reports)]),
        "plugins": [_plugin(report) | {"traceback": report.traceback} for report in reports],
        "not_loading": not_loading,
        "problems": _problems(),
    }


def _packages(distributions: list[str]) -> dict[str, str | None]:
    """The installed version of each of these and of what each requires; None for what is not installed."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for distribution in distributions:
        try:
            required = metadata.requires(distribution) or []
        except metadata.PackageNotFoundError:
            required = []
        needed = [line for line in required if "extra ==" not in line]
        for name in [distribution, *(re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in needed)]:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = None
    return dict(sorted(found.items()))


def _matrix(facts: Mapping[str, Any]) -> str:
    kind, other = ("engine", "backend") if "engines" in facts else ("backend", "engine")
    rows, why = facts[f"{kind}s"], []
    columns = list(rows[0][f"{other}s"])
    lines = [[kind, *columns, "package", "summary"]]
    for row in rows:
        pairs = row[f"{other}s"]
        package = f"{row['distribution']} {row['version']}"
        lines.append(
            [row["name"], *("yes" if pairs[name]["runs"] else "no" for name in columns), package, row["summary"]]
        )
        for name in columns:
            engine, backend = (row["name"], name) if kind == "engine" else (name, row["name"])
            if not pairs[name]["runs"]:
                why.append(f"{engine} on {backend}: {pairs[name]['reason']}")
    return _sections(table(lines), {"why not": why, "problems": facts["problems"]})


def _plugin_text(facts: Mapping[str, Any]) -> str:
    lines = [["plugin", "package", "state", "engines", "backends", "caches", "hooks"]]
    for plugin in facts["plugins"]:
        brings = [", ".join(plugin[what]) or "-" for what in ("engines", "backends", "caches", "hooks")]
        lines.append([plugin["name"], f"{plugin['distribution']} {plugin['version']}", plugin["state"], *brings])
    shown = table(lines) if len(lines) > 1 else "no plugins are installed"
    return _sections(shown, {"problems": facts["problems"]})


def _doctor_text(facts: Mapping[str, Any]) -> str:
    head = [
        f"hypernodes {facts['hypernodes']}",
        f"{facts['python']} at {facts['executable']}",
        facts["platform"],
    ]
    stories = [plugin["traceback"] for plugin in facts["plugins"] if plugin["traceback"]]
    stories += [entry["traceback"] for entry in facts["not_loading"]]
    packages = [f"{name} {version or 'is not installed'}" for name, version in facts["packages"].items()]
    text = _sections(
        "\n".join(map(safe, head)) + "\n\n" + _plugin_text({"plugins": facts["plugins"], "problems": []}),
        {"packages": packages, "problems": facts["problems"] + [entry["error"] for entry in facts["not_loading"]]},
    )
    return "\n\n".join([text, *(safe(story.rstrip()) for story in stories)])


def _sections(text: str, sections: Mapping[str, list[str]]) -> str:
    for title, lines in sections.items():
        if lines:
            text += f"\n\n{title}:\n" + "\n".join(f"  {safe(line)}" for line in lines)
    return text
