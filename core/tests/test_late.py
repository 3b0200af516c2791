"""Ctrl-C that strikes while a first call imports what it needs is neither dropped nor turned into another error."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypernodes._late import importing

STRIKE = "import os, signal, weakref\nstrike = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
PLACES = {
    # Python 3.11 makes a RuntimeError of what is raised there
    "where a class is made": "class Name:\n    __set_name__ = strike\nclass Owner:\n    name = Name()\n",
    # an exception in the callback of a weak reference is printed and forgotten
    "where exceptions are dropped": "class Lock: ...\nlock = Lock()\nref = weakref.ref(lock, strike)\ndel lock\n",
    "in plain code": "strike()\n",
}


@pytest.fixture
def struck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module `struck`, to be written."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "struck.py"
    sys.modules.pop("struck", None)


@pytest.mark.parametrize("place", PLACES)
def test_interrupt_within_an_import_is_raised_when_the_module_is_whole(struck: Path, place: str) -> None:
    struck.write_text(f"{STRIKE}{PLACES[place]}whole = True\n")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), importing("struck"):
        __import__("struck")
    assert sys.modules["struck"].whole
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_of_the_program_is_called_for_it(struck: Path) -> None:
    struck.write_text(f"{STRIKE}strike()\n")
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with importing("struck"):
            __import__("struck")
            assert came == []
        assert came == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_import_that_fails_fails_with_its_own_error(struck: Path) -> None:
    struck.write_text("1 / 0\n")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), importing("struck"):
        __import__("struck")
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_does_not_wait_for_a_module_that_is_there_or_for_another_thread(struck: Path) -> None:
    handlers = [signal.getsignal(signal.SIGINT)]

    def look(module: str) -> None:
        with importing(module):
            handlers.append(signal.getsignal(signal.SIGINT))

    look("sys")
    thread = threading.Thread(target=look, args=("struck",))
    thread.start()
    thread.join()
    assert handlers == handlers[:1] * 3
