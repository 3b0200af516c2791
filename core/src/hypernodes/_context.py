"""What travels with the work to wherever it runs: plain values that JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

__all__ = ["Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """One run, as the far side needs to know it.

    `pipeline` names it, `place` is what failures say about where they happened. `carrier` holds what `inject` hooks put
    in, such as W3C trace headers.
    """

    pipeline: str = ""
    place: str = ""
    carrier: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Context:
        return cls(**json.loads(text))
