"""loky's executor, made fit to be stopped."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from loky import ProcessPoolExecutor
from loky.process_executor import ShutdownExecutorError


class Workers(ProcessPoolExecutor):  # type: ignore[misc]  # loky has no types
    """Processes whose futures cannot be cancelled: loky 3.7 fails to kill its workers where one was."""

    def submit(self, function: Callable[..., Any], *values: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        super().submit(function, *values).add_done_callback(lambda done: _hand_on(done, future))
        return future


def _hand_on(done: Future[Any], future: Future[Any]) -> None:
    error = done.exception()
    if isinstance(error, ShutdownExecutorError):
        # Another run was stopped and took the workers with it: core sends again what was cancelled.
        future.set_exception(CancelledError())
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
