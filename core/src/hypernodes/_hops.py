"""Where each pipeline of a plan runs, for the failures that come home: far places know only themselves."""

from __future__ import annotations

from hypernodes._backend import label
from hypernodes._plan import Plan

__all__ = ["places_of"]


def places_of(plan: Plan) -> dict[tuple[str, ...], str]:
    """The label of the place of each pipeline in the plan, by its path."""
    return {path: label(plan.places[plan.settings[setting].place]) for path, setting in plan.levels}
