"""What goes wrong at Modal, in sentences."""

from __future__ import annotations

import re

import modal
from modal import exception as failures

from hypernodes.plugin import PlaceError, WorkerLostError

NO_TOKEN = (
    "no Modal token here; run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET (on a worker of another "
    "cloud too: tokens are never sent along)"
)


def refused(error: failures.AuthError) -> PlaceError:
    return PlaceError(f"Modal refused the token: {_text(error)}; run `modal token new`, or see `modal token info`")


def told(error: Exception, doing: str, where: str = "") -> PlaceError:
    """An error of Modal's client as one of ours; `doing` says what was tried, `where` where to look."""
    at = f" ({where})" if where else ""
    if isinstance(error, PlaceError):
        return error
    if isinstance(error, failures.AuthError):
        return PlaceError(NO_TOKEN) if "missing" in str(error).lower() else refused(error)
    if isinstance(error, failures.ConnectionError | ConnectionError):
        return PlaceError(f"Modal cannot be reached while {doing}: {_text(error)}")
    if isinstance(error, failures.RequestSizeError):
        return PlaceError(f"what is sent is more than Modal takes while {doing}: {_text(error)}; {VOLUME}")
    if isinstance(error, failures.NotFoundError):
        return PlaceError(
            f"Modal found no such thing while {doing}: {_text(error)}; is its name right, and is it in the environment "
            "that the backend names?"
        )
    return PlaceError(f"Modal failed while {doing}{at}: {type(error).__name__}: {_text(error)}")


VOLUME = "put large values into a modal.Volume, mount it with ModalBackend(volumes=...), and pass their paths"


def lost(error: Exception, timeout: int) -> WorkerLostError | None:
    """The loss of a container under a call, if the error is one."""
    if isinstance(error, failures.FunctionTimeoutError):
        return WorkerLostError(
            f"a container ran longer than the backend's timeout of {timeout:,} s, and was stopped while it ran this "
            "item; give ModalBackend a longer timeout=, or bound the node with @node(timeout=...)"
        )
    if isinstance(error, failures.InternalFailure):
        return WorkerLostError(f"a container died while it ran this item: {_text(error)}")
    return None


def failed_build(error: failures.Error) -> str | None:
    """The id of the image that could not be built, if that is what the error says; its class differs by version."""
    found = re.search(r"Image build for (im-\w+)", str(error))
    return None if found is None else found[1]


def build_failed(error: failures.Error, log: str) -> PlaceError:
    """An image that could not be built, with the last lines of its log."""
    return PlaceError(f"the image could not be built: {_text(error)}{_end_of(log)}")


def dying(error: failures.Error, app: str, log: str) -> PlaceError:
    """Containers that die as they start, with what they said last."""
    what, *said = _text(error).splitlines()
    log = log or "\n".join(said)
    return PlaceError(
        f"containers die as they start: {what}; does the image hold what the backend's packages import? "
        f"`modal app logs {app}` shows all that they said{_end_of(log)}"
    )


LOG_LINES = 15


def _end_of(log: str) -> str:
    lines = [line.rstrip() for line in log.splitlines() if line.strip()][-LOG_LINES:]
    return "\n".join(["; the log ends with:", *(f"  {line}" for line in lines)]) if lines else ""


def _text(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def is_local() -> bool:
    """Whether this is not a container of Modal's, where no token is needed."""
    return modal.is_local()
