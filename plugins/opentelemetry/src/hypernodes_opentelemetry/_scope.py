"""Which span is current while a node runs here, and what is current again afterwards."""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident

from opentelemetry.context import Context, attach, get_current

__all__ = ["Scope"]

_innermost: ContextVar[Scope | None] = ContextVar("hypernodes_opentelemetry_scope", default=None)


class Scope:
    """Makes `context` current in this thread or task from `enter` until `leave`.

    It may be left from another thread, in any order and more than once. A scope that was not left where it was entered
    is swept up by the next one that is entered or left there, so that none stays current for good.
    """

    # OpenTelemetry's own detach takes a token that is good in one place and once, and logs an error elsewhere. So what
    # was current before is set again instead.

    __slots__ = ("before", "context", "left", "outer", "thread")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.before: Context | None = None
        self.outer: Scope | None = None
        self.thread = 0
        self.left = False

    def enter(self) -> None:
        sweep()
        self.thread = get_ident()
        self.outer = _innermost.get()
        self.before = get_current()
        # In this order: interrupted between the two, `leave` restores what is still current.
        _innermost.set(self)
        attach(self.context)

    def leave(self) -> None:
        self.left = True
        sweep()


def sweep() -> None:
    """Make current again what was so before the innermost scopes here that have been left."""
    scope = _innermost.get()
    if scope is None or not scope.left:
        return
    before = None
    here = get_ident()
    # A thread that a node started with a copy of its context keeps that node's span, as OpenTelemetry means it to.
    while scope is not None and scope.left and scope.thread == here:
        before, scope = scope.before, scope.outer
    if before is not None:
        _innermost.set(scope)
        attach(before)
