"""What plugin authors and this project's own suites test with.

`EngineContract`, `BackendContract` and `ManifestContract` are classes to inherit, each with one fixture to give;
`draw_case` makes random pipelines whose right answer is known; `no_leaks` is a pytest fixture that fails a test
which leaves something behind; `normalised` makes the events of a call comparable. Nothing here is loaded by
`import hypernodes`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes.testing._backend_contract import BackendContract
    from hypernodes.testing._cases import Case
    from hypernodes.testing._compare import compare
    from hypernodes.testing._draw import draw_case
    from hypernodes.testing._engine_contract import EngineContract
    from hypernodes.testing._event_tree import EventLog, normalised
    from hypernodes.testing._leaks import no_leaks
    from hypernodes.testing._manifest_contract import ManifestContract
    from hypernodes.testing._subprocess import SubprocessBackend

__all__ = [
    "BackendContract",
    "Case",
    "EngineContract",
    "EventLog",
    "ManifestContract",
    "SubprocessBackend",
    "compare",
    "draw_case",
    "no_leaks",
    "normalised",
]

_HOMES = {
    "BackendContract": "_backend_contract",
    "Case": "_cases",
    "EngineContract": "_engine_contract",
    "EventLog": "_event_tree",
    "ManifestContract": "_manifest_contract",
    "SubprocessBackend": "_subprocess",
    "compare": "_compare",
    "draw_case": "_draw",
    "no_leaks": "_leaks",
    "normalised": "_event_tree",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hypernodes.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"hypernodes.testing.{_HOMES[name]}"), name)
