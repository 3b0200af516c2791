"""What holds for the tests of every package: they do not depend on who started them."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take back what whoever started the tests has made ignored: programs that tests start inherit it.

    A shell's background job ignores SIGINT, and there Ctrl-C would reach no program under test.
    """
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD})
