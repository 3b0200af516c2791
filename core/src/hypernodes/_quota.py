"""A limit by name, as pipelines and backends declare it: how many calls at once, or how many in a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hypernodes._errors import NodeDefinitionError

__all__ = ["Quota", "quotas_of"]

_SECONDS = {
    spelling: seconds
    for spellings, seconds in (
        (("s", "sec", "second"), 1.0),
        (("m", "min", "minute"), 60.0),
        (("h", "hr", "hour"), 3600.0),
        (("d", "day"), 86400.0),
    )
    for spelling in spellings
}
_WORDS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}


class Quota(NamedTuple):
    """At most `most` calls at a time; with `per`, in seconds, at most `most` that begin in any such time.

    `origin` is who declares it, `key` what tells it from others of the same name.
    """

    name: str
    most: int
    per: float | None = None
    origin: str = ""
    key: str = ""

    @property
    def rule(self) -> str:
        """As people read it: `8 at once`, `100/minute`."""
        return f"{self.most} at once" if self.per is None else f"{self.most}/{_WORDS[self.per]}"


def quotas_of(owner: str, limits: object) -> dict[str, Quota]:
    """Limits as a user declares them: `{"openai": 8, "search": "100/minute"}`; none where they are None.

    Rates take `second`, `minute`, `hour`, `day` and their usual short forms. Raises `NodeDefinitionError` for anything
    else, and for a limit of nothing.
    """
    if limits is None:
        return {}
    if not isinstance(limits, Mapping):
        raise NodeDefinitionError(f"{owner}: limits={limits!r}; give a dict, such as {{'openai': 8}}")
    found: dict[str, Quota] = {}
    for name, limit in limits.items():
        if not isinstance(name, str) or not name:
            raise NodeDefinitionError(f"{owner}: limits names {name!r}; a limit's name is a string")
        found[name] = _quota(owner, name, limit)
    return found


def _quota(owner: str, name: str, limit: Any) -> Quota:
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1:
        return Quota(name, limit)
    if isinstance(limit, str):
        found = re.fullmatch(r"\s*(\d+)\s*(?:/|\bper\b)\s*([a-zA-Z]+)\s*", limit)
        if found is not None and int(found[1]) >= 1:
            unit = found[2].lower()
            seconds = _SECONDS.get(unit, _SECONDS.get(unit.removesuffix("s")))
            if seconds is not None:
                return Quota(name, int(found[1]), seconds)
    raise NodeDefinitionError(
        f"{owner}: limits[{name!r}]={limit!r}; give how many calls may run at once, a whole number of 1 or more, or "
        "how many may begin in a time, such as '10/second', '100/minute', '1000/hour' or '5000/day'"
    )
