"""A backend runs an engine when it provides what the engine requires and no plugin objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Place

SPECS = """
@hookimpl
def engines(): return [
    EngineSpec('dask', 'a:Dask', requires={'dask.client'}), EngineSpec('light', 'a:Light'),
    EngineSpec('ray', 'a:Ray', requires={'ray.runtime'}, opens_on={'machine'})]
@hookimpl
def backends(): return [
    BackendSpec('cluster', 'a:Cluster', provides={'dask.client', 'threads'}), BackendSpec('bare', 'a:Bare'),
    BackendSpec('rays', 'a:Rays', provides={'ray.runtime'}), BackendSpec('rented', 'a:Rented', provides={'machine'})]
"""
PAIRS = """
    from hypernodes._pairing import hosts, refusal
    from hypernodes._registry import backend_spec, engine_spec
    from hypernodes._errors import PluginError
    def pair(backend, engine):
        try:
            return refusal(backend_spec(backend), engine_spec(engine))
        except PluginError as problem:
            return f"{type(problem).__name__}: {problem}"
"""


def test_pair_is_good_when_what_is_required_is_provided(place: Place) -> None:
    place.plugin("acme", SPECS)
    code = (
        PAIRS
        + """
    answer = [pair("cluster", "dask"), pair("local", "light"), pair("local", "dask"), pair("bare", "dask"),
              hosts(engine_spec("dask")), hosts(engine_spec("light"))]
    """
    )
    assert place.python(code) == [
        None,
        None,
        "it requires 'dask.client', and backend 'local' provides 'processes', 'threads'",
        "it requires 'dask.client', and backend 'bare' provides nothing",
        ["cluster"],
        ["local", "bare", "cluster", "rays", "rented"],
    ]


def test_engine_that_opens_what_it_requires_runs_where_there_is_what_it_needs_for_that(place: Place) -> None:
    place.plugin("acme", SPECS)
    code = (
        PAIRS
        + """
    answer = [pair("rays", "ray"), pair("rented", "ray"), pair("cluster", "ray"), hosts(engine_spec("ray"))]
    """
    )
    assert place.python(code) == [
        None,
        None,
        (
            "it requires 'ray.runtime', or 'machine' to open that there by itself, and backend 'cluster' provides "
            "'dask.client', 'threads'"
        ),
        ["rays", "rented"],
    ]


def test_plugin_may_object_to_any_pair_but_core_s_own(place: Place) -> None:
    place.plugin("acme", SPECS)
    place.plugin(
        "strict",
        """
        @hookimpl
        def refuse_pair(backend, engine):
            return f"{engine.name} is too slow on {backend.name}" if backend.name != "bare" else None
        """,
    )
    code = (
        PAIRS
        + """
    answer = [pair("local", "light"), pair("local", "sequential"), pair("bare", "light"), hosts(engine_spec("light"))]
    """
    )
    assert place.python(code) == ["light is too slow on local", None, None, ["bare"]]


def test_first_objection_wins_in_the_order_that_plugins_ask_for(place: Place) -> None:
    place.plugin("acme", SPECS)
    for name, option in [("a", "trylast=True"), ("b", ""), ("c", "tryfirst=True"), ("d", "")]:
        place.plugin(
            name,
            f"""
            @hookimpl({option})
            def refuse_pair(engine): return {name!r} if engine.name == "light" else None
            """,
        )
    code = (
        PAIRS
        + """
    answer = [pair("local", "light")]
    """
    )
    assert place.python(code) == ["c"]
    assert place.python(code, HYPERNODES_PLUGINS="acme,a,b,d") == ["b"]
    assert place.python(code, HYPERNODES_PLUGINS="acme,a") == ["a"]


def test_plugin_that_fails_to_judge_a_pair_is_named(place: Place) -> None:
    place.plugin("acme", SPECS)
    place.plugin(
        "judge", "@hookimpl\ndef refuse_pair(backend): return 7 if backend.name == 'bare' else 1 / 0", version="4.0"
    )
    code = (
        PAIRS
        + """
    import logging
    logging.disable()
    answer = [pair("local", "light"), pair("bare", "light"), hosts(engine_spec("light"))]
    """
    )
    raised, odd, able = place.python(code)
    assert raised == (
        "PluginError: plugin 'judge' of acme-judge 4.0 failed when asked whether backend 'local' may run "
        "engine 'light': ZeroDivisionError: division by zero"
    )
    assert odd.endswith("answered refuse_pair() with 7, which is neither text nor None")
    assert able == []
