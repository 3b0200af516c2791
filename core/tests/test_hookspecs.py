"""Every hook is called as its description says, and a plugin that fails in one stops nobody else."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from hypernodes import hookspecs

if TYPE_CHECKING:
    from conftest import Place

LOGGED = """
    import logging
    records = []
    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())
    logging.getLogger("hypernodes").addHandler(Keep())
    logging.getLogger("hypernodes").propagate = False
    from hypernodes import _observers as observers
"""


def test_the_list_of_names_is_the_list_of_hooks() -> None:
    marked = [name for name, value in vars(hookspecs).items() if getattr(value, "hypernodes_spec", None)]
    assert tuple(marked) == hookspecs.NAMES


@pytest.mark.parametrize("name", hookspecs.NAMES)
def test_every_hook_says_when_it_is_called_and_what_happens_if_it_raises(name: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, name)) or ""
    assert "Called " in text
    assert "if it raises" in text.lower()


def test_listeners_come_from_every_plugin_that_gives_one(place: Place) -> None:
    place.plugin("a", "@hookimpl\ndef subscribe(run): return lambda event: run.append(('a', event))")
    place.plugin("b", "@hookimpl\ndef subscribe(run): return None")
    place.plugin("c", "@hookimpl\ndef subscribe(): return print")
    place.plugin("d", "@hookimpl\ndef subscribe(run): raise ValueError('deaf')")
    place.plugin("e", "@hookimpl\ndef subscribe(run): return 'not callable'")
    code = (
        LOGGED
        + """
    run = []
    found = observers.listeners(run)
    found[0]("started")
    answer = [len(found), run, records]
    """
    )
    count, run, logged = place.python(code)
    assert (count, run) == (2, [["a", "started"]])
    assert logged == [
        "plugin 'd' of acme-d 1.0 hears nothing of this run: its hook subscribe() raised",
        "plugin 'e' of acme-e 1.0 hears nothing of this run: subscribe() returned 'not callable', not a callable",
    ]


def test_carrier_holds_what_sound_plugins_put_in(place: Place) -> None:
    place.plugin("a", "@hookimpl\ndef inject(carrier): carrier['a'] = '1'")
    place.plugin("b", "@hookimpl\ndef inject(carrier):\n    carrier['b'] = 'half'\n    raise ValueError")
    place.plugin("c", "@hookimpl\ndef inject(carrier): carrier['c'] = 3")
    place.plugin("d", "@hookimpl\ndef inject(carrier): carrier['d'] = carrier['a'] + '+'")
    code = (
        LOGGED
        + """
    carrier = {"own": "0"}
    observers.inject(carrier)
    answer = [carrier, records]
    """
    )
    carrier, logged = place.python(code)
    assert carrier == {"own": "0", "a": "1", "d": "1+"}
    assert logged == [
        "plugin 'b' of acme-b 1.0 adds nothing to what crosses: its hook inject() raised",
        "plugin 'c' of acme-c 1.0 adds nothing to what crosses: inject() put in more than text keys and values",
    ]


EXTRACTORS = """
import contextlib, counter
@hookimpl
@contextlib.contextmanager
def extract(carrier):
    counter.log.append("enter {name}")
    try:
        yield
    except ValueError as error:
        counter.log.append("{name} saw " + str(error))
    finally:
        counter.log.append("leave {name}")
"""


def test_what_crossed_is_held_around_the_tasks_whatever_other_plugins_do(place: Place) -> None:
    place.module("counter", "log = []")
    for name in ("a", "d"):
        place.plugin(name, EXTRACTORS.replace("{name}", name))
    place.plugin("b", "@hookimpl\ndef extract(carrier): raise OSError")
    place.plugin("c", "@hookimpl\ndef extract(carrier): return 'no context manager'")
    place.plugin("e", "@hookimpl\ndef extract(carrier): return None")
    place.plugin(
        "f",
        """
        class Bad:
            def __enter__(self): ...
            def __exit__(self, *_): raise RuntimeError('exit')
        @hookimpl
        def extract(carrier): return Bad()
        """,
    )
    code = (
        LOGGED
        + """
    import counter
    with observers.extract({}):
        counter.log.append("tasks")
    calm, counter.log = counter.log, []
    try:
        with observers.extract({}):
            raise ValueError("mine")
    except ValueError as error:
        counter.log.append(f"user sees {error}")
    answer = [calm, counter.log, sorted(set(records))]
    """
    )
    calm, stormy, logged = place.python(code)
    assert calm == ["enter a", "enter d", "tasks", "leave d", "leave a"]
    assert stormy == [
        "enter a", "enter d", "d saw mine", "leave d", "a saw mine", "leave a", "user sees mine"
    ]  # fmt: skip
    assert [line.split(" of ")[0] for line in logged] == ["plugin 'b'", "plugin 'c'", "plugin 'f'"]


def test_first_plugin_that_knows_an_address_opens_the_cache(place: Place) -> None:
    place.plugin("a", "@hookimpl\ndef open_cache(url): return None")
    place.plugin("b", "@hookimpl\ndef open_cache(url): return 'cache b' if url.startswith('b:') else None")
    place.plugin(
        "c",
        """
        @hookimpl
        def open_cache(url):
            if url == "c:full":
                raise OSError("disk full")
            return "cache c" if url.startswith(("b:", "c:")) else None
        """,
    )
    code = """
        from hypernodes import _observers as observers
        from hypernodes._errors import CacheError
        answer = [observers.open_cache(url) for url in ("b:1", "c:1", "x:1")]
        try:
            observers.open_cache("c:full")
        except CacheError as problem:
            answer += [str(problem), type(problem.__cause__).__name__]
    """
    assert place.python(code) == [
        "cache b",
        "cache c",
        None,
        "plugin 'c' of acme-c 1.0 could not open the cache 'c:full': OSError: disk full",
        "OSError",
    ]


def test_password_in_an_address_is_not_told(place: Place) -> None:
    place.plugin("c", "@hookimpl\ndef open_cache(url): raise OSError(f'no answer from {url}')")
    code = """
        from hypernodes import _observers as observers
        from hypernodes._errors import CacheError
        try:
            observers.open_cache("c://ada:hunter2@host/x?token=swordfish")
        except CacheError as problem:
            answer = str(problem)
    """
    assert place.python(code) == (
        "plugin 'c' of acme-c 1.0 could not open the cache 'c://...@host/x?...': "
        "OSError: no answer from c://...@host/x?..."
    )


def test_without_plugins_nothing_is_watched_or_added(place: Place) -> None:
    code = """
        from hypernodes import _observers as observers
        carrier = {}
        observers.inject(carrier)
        with observers.extract(carrier):
            answer = [observers.listeners(None), carrier, observers.open_cache("x:1")]
    """
    assert place.python(code) == [[], {}, None]


def test_hook_calls_can_be_traced_without_their_values(place: Place) -> None:
    place.plugin("a", "@hookimpl\ndef inject(carrier): carrier['a'] = '1'")
    code = "from hypernodes._observers import inject; inject({'key': 'hush'})"
    traced = place.start("-c", code, HYPERNODES_TRACE_HOOKS="1").stderr
    assert traced == "hypernodes: inject(carrier) asks plugin 'a' of acme-a 1.0\n"
    assert place.start("-c", code).stderr == ""


def test_exported_class_is_a_name_of_hypernodes_and_a_broken_export_stops_nobody(place: Place) -> None:
    place.plugin("a", "@hookimpl\ndef exports(): return {'OrderedCallback': 'collections:OrderedDict'}")
    place.plugin("b", "@hookimpl\ndef exports(): raise ValueError('closed today')")
    place.plugin("c", "@hookimpl\ndef exports(): return {'LostCallback': 'nowhere_at_all:Lost'}")
    code = (
        LOGGED
        + """
    import hypernodes
    try:
        hypernodes.LostCallback
    except ImportError as error:
        lost = str(error)
    try:
        hypernodes.UnheardOfCallback
    except AttributeError as error:
        unknown = str(error)
    answer = [hypernodes.OrderedCallback.__name__, lost, unknown, records[0]]
    """
    )
    name, lost, unknown, logged = place.python(code)
    assert name == "OrderedDict"
    assert "'LostCallback'" in lost
    assert "No module named 'nowhere_at_all'" in lost
    assert unknown == "module 'hypernodes' has no attribute 'UnheardOfCallback'"
    assert logged == "plugin 'b' of acme-b 1.0 exports nothing: its hook exports() raised"
