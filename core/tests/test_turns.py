"""Outcomes that are held back for their turn."""

from __future__ import annotations

from hypernodes._engine import Feed
from hypernodes._task import Batch
from hypernodes._turns import Turns


def test_who_waits_until_less_is_held_back_is_woken_when_a_turn_has_come() -> None:
    feed = Feed([(1,), (2,), (3,)])
    woken: list[int] = []
    feed.on_more(lambda: woken.append(feed.held))
    turns = Turns(feed, stop_at_failure=False)
    assert turns.ready(Batch(1, [(2,), (3,)], {})) == []
    assert (feed.held, woken) == (2, [])
    assert [batch.first for batch in turns.ready(Batch(0, [(1,)], {}))] == [0, 1]
    assert (feed.held, woken) == (0, [0])
