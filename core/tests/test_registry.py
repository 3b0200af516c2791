"""Plugins are found when needed, a broken one fails alone, and a name that fails says why and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Place

ENGINE = "@hookimpl\ndef engines(): return "

# what is wrong with the plugin: its manifest, the type of the original error, and a piece of what it says
BROKEN = {
    "raises ImportError": ("import no_such_library", "ModuleNotFoundError", "no_such_library"),
    "does not parse": ("def engines(:", "SyntaxError", "broken_manifest.py"),
    "exits": ("raise SystemExit('bye')", "SystemExit", "bye"),
    "raises what no program expects": ("raise GeneratorExit", "GeneratorExit", ""),
    "raises an unreadable error": (
        "class Odd(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise Odd",
        "Odd",
        "cannot be read (RuntimeError)",
    ),
    "has no hooks": ("x = 1", "PluginError", "implements no hook"),
    "misspells a hook": ("@hookimpl\ndef engine(): return []", "PluginValidationError", "engine"),
    "takes unknown arguments": (ENGINE.replace("()", "(speed)") + "[]", "PluginValidationError", "speed"),
    "wraps a hook": (
        "@hookimpl(wrapper=True)\ndef engines():\n    return (yield)",
        "PluginError",
        "'engines' is a wrapper",
    ),
    "fails in its hook": (ENGINE + "[1 / 0]", "ZeroDivisionError", "division"),
    "fails half way": (
        "@hookimpl\ndef engines():\n    yield EngineSpec('broken', 'a:B')\n    raise OSError('disk')",
        "OSError",
        "disk",
    ),
    "returns nothing": (ENGINE + "None", "PluginError", "engines() returned None, not a list of EngineSpec"),
    "returns a number": (ENGINE + "42", "PluginError", "engines() returned 42"),
    "returns text": (ENGINE + "'broken'", "PluginError", "engines() returned 'broken'"),
    "returns the wrong spec": (ENGINE + "[BackendSpec('broken', 'a:B')]", "PluginError", "only EngineSpec may be"),
    "returns the class itself": (ENGINE + "[int]", "PluginError", "<class 'int'>"),
    "gives a class, not a path": (ENGINE + "[EngineSpec('broken', int)]", "PluginError", "not an import path"),
    "gives a path without a class": (ENGINE + "[EngineSpec('broken', 'a.b')]", "PluginError", "'package.module:Class'"),
    "invents a mode": (ENGINE + "[EngineSpec('broken', 'a:B', modes=('fast',))]", "PluginError", "'parallel'"),
    "defaults to a mode it has not": (
        ENGINE + "[EngineSpec('broken', 'a:B', modes=('async',))]",
        "PluginError",
        "default_mode='parallel'",
    ),
    "opens on what is no name": (ENGINE + "[EngineSpec('broken', 'a:B', opens_on={3})]", "PluginError", "opens_on={3}"),
    "requires what is no name": (ENGINE + "[EngineSpec('broken', 'a:B', requires={3})]", "PluginError", "requires={3}"),
    "declares a name twice": (
        ENGINE + "[EngineSpec('broken', 'a:B'), EngineSpec('broken', 'a:C')]",
        "PluginError",
        "declares 'broken' twice",
    ),
    "takes core's name": (ENGINE + "[EngineSpec('async', 'a:B')]", "PluginError", "belongs to hypernodes itself"),
    "takes core's backend": (
        "@hookimpl\ndef backends(): return [BackendSpec('local', 'a:B')]",
        "PluginError",
        "backends() declares 'local', a name that belongs to hypernodes itself",
    ),
    "declares a cache that is none": (
        "@hookimpl\ndef caches(): return [EngineSpec('broken', 'a:B')]",
        "PluginError",
        "only CacheSpec may be",
    ),
    "takes core's cache": (
        "@hookimpl\ndef caches(): return [CacheSpec('disk', 'a:B')]",
        "PluginError",
        "caches() declares 'disk', a name that belongs to hypernodes itself",
    ),
    "looks names up while it loads": (
        "from hypernodes._registry import engine_spec\nengine_spec('good')",
        "PluginError",
        "looked up an engine or a backend while it was being loaded",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_plugin_fails_alone_and_only_when_used(place: Place, fault: str) -> None:
    source, error, said = BROKEN[fault]
    place.plugin("broken", source, distribution="acme-broken", version="2.1")
    place.engine("good")
    code = """
        import hypernodes
        from hypernodes import _registry as registry
        from hypernodes._errors import PluginLoadError, UnknownNameError
        registry.engine_spec("sequential"), registry.backend_spec("local")
        untouched = "broken_manifest" not in sys.modules
        good = registry.engine_spec("good").name
        try:
            registry.engine_spec("broken")
        except PluginLoadError as problem:
            told, cause = str(problem), type(problem.__cause__).__name__
        try:
            registry.engine_spec("other")
        except UnknownNameError as problem:
            unknown = str(problem)
        report, = [report for report in registry.plugins() if report.name == "broken"]
        answer = [untouched, good, told, cause, unknown, report.state, report.error, report.traceback]
    """
    untouched, good, told, cause, unknown, state, summary, traceback = place.python(code)
    assert untouched
    assert good == "good"
    assert told.startswith("engine 'broken' cannot be used: plugin 'broken' of acme-broken 2.1 is installed but failed")
    assert said in told
    assert cause == error
    assert "available engines: 'sequential', 'async', 'good'" in unknown
    assert f"note: plugin 'broken' of acme-broken 2.1 failed to load: {error}" in unknown
    assert (state, summary.partition(":")[0]) == ("broken", error)
    assert error in traceback


@pytest.mark.parametrize("fault", ["raises ImportError", "exits", "takes core's name"])
def test_broken_plugin_can_be_switched_off(place: Place, fault: str) -> None:
    place.plugin("broken", BROKEN[fault][0])
    place.engine("good")
    code = """
        from hypernodes import _registry as registry
        from hypernodes._errors import UnknownNameError
        names = list(registry.engine_specs())
        states = {report.name: report.state for report in registry.plugins()}
        try:
            registry.engine_spec("broken")
        except UnknownNameError as problem:
            told = str(problem)
        answer = [names, states, told, "broken_manifest" in sys.modules]
    """
    names, states, told, loaded = place.python(code, HYPERNODES_PLUGINS="good")
    assert names == ["sequential", "async", "good"]
    assert states == {"broken": "disabled", "good": "ready"}
    assert "HYPERNODES_PLUGINS leaves out 'broken'" in told
    assert not loaded


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", []), ("a", ["a"]), (" b , a ", ["a", "b"]), ("ACME_a", ["a"]), ("nobody", [])],
)
def test_only_the_plugins_that_the_environment_names_are_loaded(place: Place, value: str, expected: list[str]) -> None:
    for name in ("a", "b"):
        place.engine(name)
    code = "from hypernodes._registry import engine_specs; answer = list(engine_specs())[2:]"
    assert place.python(code, HYPERNODES_PLUGINS=value) == expected
    assert place.python(code) == ["a", "b"]


def test_interrupt_while_a_plugin_loads_reaches_the_user_and_the_next_look_up_works(place: Place) -> None:
    place.plugin("slow", "import first_time\n" + ENGINE + "[EngineSpec('slow', 'a:B')]")
    place.module("first_time", "import sys\nif not hasattr(sys, 'met'):\n    sys.met = 1\n    raise KeyboardInterrupt")
    code = """
        from hypernodes._registry import engine_spec
        try:
            engine_spec("slow")
        except KeyboardInterrupt:
            answer = engine_spec("slow").name
    """
    assert place.python(code) == "slow"


@pytest.mark.parametrize("value", ["no_such_module", "good_manifest:nothing", "good manifest", "json:dumps"])
def test_entry_point_that_leads_nowhere_is_set_aside(place: Place, value: str) -> None:
    place.engine("good")
    place.engine("lost", value=value)
    code = """
        from hypernodes._registry import engine_specs, plugins
        answer = [list(engine_specs()), {report.name: report.state for report in plugins()}]
    """
    assert place.python(code) == [["sequential", "async", "good"], {"good": "ready", "lost": "broken"}]


def test_damaged_package_metadata_hides_no_other_plugin(place: Place) -> None:
    place.engine("good")
    damaged = place.site / "damaged-1.0.dist-info"
    damaged.mkdir()
    (damaged / "entry_points.txt").write_bytes(b"[hypernodes]\nx = \xff\xfe\n")
    code = """
        from hypernodes._registry import engine_specs, plugins
        answer = [list(engine_specs()), [(report.state, report.error) for report in plugins()]]
    """
    names, states = place.python(code)
    assert names == ["sequential", "async", "good"]
    assert sorted(state for state, _ in states) == ["broken", "ready"]
    assert any("UnicodeDecodeError" in error for _, error in states)


def test_manifest_may_be_any_object_even_one_that_cannot_be_hashed(place: Place) -> None:
    place.engine("good")
    place.plugin(
        "object",
        """
        class Manifest:
            __hash__ = None
            @hookimpl
            def engines(self): return [EngineSpec('object', 'a:B')]
        manifest = Manifest()
        """,
        value="object_manifest:manifest",
    )
    code = "from hypernodes._registry import engine_specs; answer = list(engine_specs())[2:]"
    assert place.python(code) == ["good", "object"]


def test_two_packages_with_one_name_are_both_named_and_nothing_else_suffers(place: Place) -> None:
    for owner in ("left", "right"):
        place.plugin(owner, ENGINE + f"[EngineSpec('fast', 'a:B'), EngineSpec('{owner}', 'a:B')]")
    code = """
        from hypernodes import _registry as registry
        from hypernodes._errors import DuplicateNameError
        registry.engine_spec("left"), registry.engine_spec("right")
        try:
            registry.engine_spec("fast")
        except DuplicateNameError as problem:
            answer = [str(problem), registry.conflicts(), list(registry.engine_specs())]
    """
    told, conflicts, names = place.python(code)
    assert told.startswith("engine 'fast' is declared by 'acme-left' and by 'acme-right'; uninstall one of them")
    assert conflicts == [told]
    assert names == ["sequential", "async", "left", "right"]
    code = "from hypernodes._registry import engine_spec; answer = engine_spec('fast').distribution"
    assert place.python(code, HYPERNODES_PLUGINS="right") == "acme-right"


def test_an_engine_and_a_backend_may_share_a_name(place: Place) -> None:
    place.plugin(
        "ray", ENGINE + "[EngineSpec('ray', 'a:B')]\n@hookimpl\ndef backends(): return [BackendSpec('ray', 'a:C')]"
    )
    code = """
        from hypernodes._registry import backend_spec, engine_spec
        answer = [engine_spec("ray").target, backend_spec("ray").target]
    """
    assert place.python(code) == ["a:B", "a:C"]


def test_misspelt_name_gets_a_suggestion_and_the_choice(place: Place) -> None:
    place.engine("turbo")
    code = """
        from hypernodes import _registry as registry
        answer = []
        engine, backend = registry.engine_spec, registry.backend_spec
        for look_up, name in [(engine, "tubro"), (backend, "locl"), (engine, "local"), (engine, "modal")]:
            try:
                look_up(name)
            except LookupError as problem:
                answer.append(str(problem))
    """
    engine, backend, mixed_up, absent = place.python(code)
    assert engine == (
        "unknown engine 'tubro' (did you mean 'turbo'?)\navailable engines: 'sequential', 'async', 'turbo'"
    )
    assert backend == "unknown backend 'locl' (did you mean 'local'?)\navailable backends: 'local'"
    assert mixed_up.startswith("unknown engine 'local'; 'local' is a backend, not an engine")
    assert absent.startswith("unknown engine 'modal'; 'modal' is a backend, not an engine")


@pytest.mark.parametrize(
    ("kind", "name", "install"),
    [
        ("engine", "threaded", "pip install hypernodes"),
        ("engine", "multiprocess", "pip install hypernodes"),
        ("engine", "ray", "pip install 'hypernodes[ray]'"),
        ("engine", "dask", "pip install 'hypernodes[coiled]'"),
        ("backend", "modal", "pip install 'hypernodes[modal]'"),
    ],
)
def test_absent_plugin_of_the_project_says_what_to_install(place: Place, kind: str, name: str, install: str) -> None:
    code = f"""
        from hypernodes._registry import {kind}_spec
        from hypernodes._errors import UnknownNameError
        try:
            {kind}_spec({name!r})
        except UnknownNameError as problem:
            answer = str(problem)
    """
    assert place.python(code) == f"{kind} '{name}' comes with a separate package: {install}"


def test_broken_plugin_of_the_project_is_broken_not_absent(place: Place) -> None:
    place.plugin("coiled-dask", "import dask_is_not_here", distribution="hypernodes-coiled", version="0.5.0")
    code = """
        from hypernodes import _registry as registry
        from hypernodes._errors import PluginLoadError, UnknownNameError
        answer = []
        engine, backend, find = registry.engine_spec, registry.backend_spec, registry.find_class
        for call, name in [(engine, "dask"), (backend, "coiled"), (find, "CoiledBackend")]:
            try:
                call(name)
            except (PluginLoadError, UnknownNameError) as problem:
                answer.append([type(problem).__name__, str(problem), repr(problem.__cause__)])
    """
    for kind, told, cause in place.python(code):
        assert kind == "PluginLoadError"
        assert "plugin 'coiled-dask' of hypernodes-coiled 0.5.0 is installed but failed to load" in told
        assert "dask_is_not_here" in cause
    for kind, told, _ in place.python(code, HYPERNODES_PLUGINS=""):
        assert kind in ("UnknownNameError", "PluginLoadError")
        assert "is installed but left out by HYPERNODES_PLUGINS" in told


def test_library_that_is_missing_is_met_only_when_the_name_is_used(place: Place) -> None:
    place.plugin("heavy", ENGINE + "[EngineSpec('heavy', 'heavy_engine:HeavyEngine')]")
    place.module("heavy_engine", "import missing_heavy_library")
    code = """
        from hypernodes import _registry as registry
        from hypernodes._errors import PluginLoadError
        spec = registry.engine_spec("heavy")
        before = "heavy_engine" in sys.modules
        answer = [before, spec.distribution]
        for use in (lambda: registry.load(spec), lambda: registry.find_class("HeavyEngine")):
            try:
                use()
            except PluginLoadError as problem:
                answer.append([str(problem), type(problem.__cause__).__name__])
    """
    before, owner, *failures = place.python(code)
    assert (before, owner) == (False, "acme-heavy")
    told = (
        "engine 'heavy' of 'acme-heavy' could not be imported from 'heavy_engine:HeavyEngine': "
        "ModuleNotFoundError: No module named 'missing_heavy_library'"
    )
    assert failures == [[told, "ModuleNotFoundError"], [told, "ModuleNotFoundError"]]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("Other = 1", "AttributeError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def Engine(): ...", "which is not a class"),
    ],
)
def test_target_that_is_no_class_is_told_with_its_path(place: Place, source: str, said: str) -> None:
    place.plugin("odd", ENGINE + "[EngineSpec('odd', 'odd_engine:Engine')]")
    place.module("odd_engine", source)
    code = """
        from hypernodes._registry import engine_spec, load
        try:
            load(engine_spec("odd"))
        except ImportError as problem:
            answer = str(problem)
    """
    told = place.python(code)
    assert "engine 'odd' of 'acme-odd'" in told
    assert "odd_engine:Engine" in told
    assert said in told


def test_class_of_a_plugin_is_found_by_its_name(place: Place) -> None:
    place.plugin("turbo", ENGINE + "[EngineSpec('turbo', 'turbo_engine:TurboEngine')]")
    place.module("turbo_engine", "class TurboEngine: ...")
    code = """
        from hypernodes._registry import find_class
        from hypernodes._errors import PluginLoadError
        found = find_class("TurboEngine")
        try:
            find_class("ModalBackend")
        except ImportError as problem:
            told = str(problem)
        answer = [found.__module__, told, find_class("NobodysEngine")]
    """
    assert place.python(code) == [
        "turbo_engine",
        "'ModalBackend' comes with a separate package: pip install 'hypernodes[modal]'",
        None,
    ]


def test_class_that_two_packages_bring_is_not_guessed(place: Place) -> None:
    for owner in ("left", "right"):
        place.plugin(owner, ENGINE + f"[EngineSpec('{owner}', '{owner}_engine:FastEngine')]")
    code = """
        from hypernodes._registry import find_class
        from hypernodes._errors import DuplicateNameError
        try:
            find_class("FastEngine")
        except DuplicateNameError as problem:
            answer = str(problem)
    """
    assert place.python(code) == (
        "'FastEngine' is brought by 'acme-left' and by 'acme-right'; "
        "import it from the package that you mean: 'left_engine', 'right_engine'"
    )


def test_plugins_load_once_and_not_for_what_core_owns(place: Place) -> None:
    place.plugin("counted", "import counter\ncounter.loaded.append(1)\n" + ENGINE + "[EngineSpec('counted', 'a:B')]")
    place.module("counter", "loaded = []")
    code = """
        import threading
        from hypernodes import _pairing, _registry as registry
        import counter
        local, plain = registry.backend_spec("local"), registry.engine_spec("sequential")
        registry.engine_spec("async"), _pairing.refusal(local, plain)
        answer = [registry.find_class("testing"), registry.find_class("__path__"), registry.find_class("_wire")]
        answer += [len(counter.loaded), [name for name in ("pluggy", "importlib.metadata") if name in sys.modules]]
        barrier, found = threading.Barrier(8), []
        def look():
            barrier.wait()
            found.append(registry.engine_spec("counted"))
        threads = [threading.Thread(target=look) for _ in range(8)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        answer += [len(counter.loaded), len(found), all(spec is found[0] for spec in found)]
    """
    assert place.python(code) == [None, None, None, 0, [], 1, 8, True]


def test_reset_looks_again(place: Place) -> None:
    place.engine("good")
    code = """
        import os
        from hypernodes import _registry as registry
        before = len(registry.engine_specs())
        os.environ["HYPERNODES_PLUGINS"] = ""
        answer = [before, len(registry.engine_specs())]
        registry.reset()
        answer.append(len(registry.engine_specs()))
    """
    assert place.python(code) == [3, 3, 2]


def test_report_says_where_a_plugin_comes_from_and_what_it_brings(place: Place) -> None:
    place.engine("good", version="3.2")
    code = """
        from hypernodes._registry import plugins
        report, = plugins()
        answer = [report.name, report.distribution, report.version, report.target, report.state, report.file,
                  report.hooks, [spec.name for spec in report.engines], report.backends, report.error]
    """
    name, owner, version, target, state, file, hooks, engines, backends, error = place.python(code)
    assert (name, owner, version, target) == ("good", "acme-good", "3.2", "good_manifest")
    assert (state, hooks, engines, backends, error) == ("ready", ["engines"], ["good"], [], "")
    assert file.endswith("good_manifest.py")


def test_package_found_twice_on_the_path_counts_once(place: Place) -> None:
    place.engine("good")
    second = place.path / "second"
    (second / "acme_good-0.9.dist-info").mkdir(parents=True)
    (second / "acme_good-0.9.dist-info" / "METADATA").write_text("Name: Acme.Good\nVersion: 0.9\n")
    (second / "acme_good-0.9.dist-info" / "entry_points.txt").write_text("[hypernodes]\ngood = good_manifest\n")
    code = f"""
        sys.path.append({str(second)!r})
        from hypernodes._registry import engine_spec, plugins
        answer = [engine_spec("good").distribution, [report.version for report in plugins()]]
    """
    assert place.python(code) == ["acme-good", ["1.0"]]


def test_cache_of_a_plugin_is_a_name_of_hypernodes(place: Place) -> None:
    place.plugin("a", "@hookimpl\ndef caches(): return [CacheSpec('shelf', 'acme_cache:ShelfCache', 'a shelf')]")
    place.module("acme_cache", "class ShelfCache: ...")
    code = """
        import hypernodes
        from hypernodes import _registry as registry
        from hypernodes import DiskCache, MemoryCache
        untouched = "acme_manifest" not in sys.modules and "pluggy" not in sys.modules
        from hypernodes import ShelfCache
        (report,) = registry.plugins()
        try:
            hypernodes.FsspecCache
        except ImportError as problem:
            absent = str(problem)
        try:
            hypernodes.QuuxCache
        except AttributeError as problem:
            unknown = str(problem)
        answer = [untouched, ShelfCache.__module__, [spec.name for spec in report.caches], absent, unknown]
    """
    assert place.python(code) == [
        True,
        "acme_cache",
        ["shelf"],
        "'FsspecCache' comes with a separate package: pip install 'hypernodes[fsspec]'",
        "module 'hypernodes' has no attribute 'QuuxCache'",
    ]


def test_cache_that_two_plugins_bring_names_both(place: Place) -> None:
    for name in ("a", "b"):
        place.plugin(name, f"@hookimpl\ndef caches(): return [CacheSpec('shelf', 'acme_{name}:ShelfCache')]")
    code = """
        import hypernodes
        from hypernodes import _registry as registry
        try:
            hypernodes.ShelfCache
        except registry.DuplicateNameError as problem:
            answer = [str(problem), registry.conflicts()]
    """
    told, (conflict,) = place.python(code)
    assert told.startswith("'ShelfCache' is brought by 'acme-a' and by 'acme-b'; import it from the package")
    assert conflict.startswith("cache 'shelf' is declared by 'acme-a' and by 'acme-b'")
