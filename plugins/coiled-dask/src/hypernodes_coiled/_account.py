"""Coiled's account: the token is looked at first, since without a good one the client opens a browser and waits."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from hypernodes_coiled._errors import CoiledLoginError

__all__ = ["log_in"]

PATIENCE = 60.0
"""Seconds for Coiled's server to say who the token belongs to; while it is overloaded the client asks again."""
_HOW = "run `coiled login`, or set the variable DASK_COILED__TOKEN to a token of your Coiled account"


def log_in(workspace: str | None) -> Any:
    """A `coiled.Cloud` of the user's account, which its user closes.

    Raises `CoiledLoginError` within a second for a token that is missing or wrong. No browser is opened.
    """
    import coiled
    import dask.config

    # Settings are read when dask is imported; a notebook may have set the variable since.
    token = dask.config.get("coiled.token", None) or os.environ.get("DASK_COILED__TOKEN")
    server = dask.config.get("coiled.server", None) or "https://cloud.coiled.io"
    if not token:
        raise CoiledLoginError(f"no token of a Coiled account is set; {_HOW}")
    if "://" not in server:
        server = f"http://{server}"
    _check(server, token)
    try:
        return coiled.Cloud(server=server, token=token, workspace=workspace)
    except PermissionError as error:
        raise CoiledLoginError(f"Coiled at {server} does not let this token in: {error}") from error


def _check(server: str, token: str) -> None:
    """Ask the server whose token it is, without the client's own answer to a wrong one, a browser."""
    from coiled.exceptions import AuthenticationError
    from coiled.utils import handle_credentials

    async def ask() -> None:
        asked = handle_credentials(
            server=server, token=token, retry=False, save=False, print_invalid_token_messages=False
        )
        await asyncio.wait_for(asked, PATIENCE)

    try:
        _in_thread(ask)
    except AuthenticationError as error:
        raise CoiledLoginError(f"Coiled at {server} does not know the token that is set; {_HOW}") from error
    except TimeoutError as error:
        raise CoiledLoginError(f"Coiled at {server} has not answered for {PATIENCE:g} s; try again later") from error
    except Exception as error:
        raise CoiledLoginError(f"Coiled at {server} could not be asked: {type(error).__name__}: {error}") from error


def _in_thread(ask: Any) -> None:
    """Await it where no event loop runs; the caller's thread may have one, as in a notebook."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(ask())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="hypernodes-coiled-login", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
