"""The same calls through the input plane, which newer functions name in their metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes_modal.testing import LocalModal

pytestmark = pytest.mark.slow


def made_work() -> Callable[..., Any]:
    def work(what: str, *args: Any) -> Any:
        import os
        from pathlib import Path

        if what == "echo":
            return args[0]
        with Path(args[0]).open("a") as file:
            file.write("x")
        if Path(args[0]).stat().st_size <= args[1]:
            if what == "die":
                os._exit(3)
            raise OSError("not yet")
        return "lived"

    return work


def made_count() -> Callable[[int], Iterator[int]]:
    def count(limit: int) -> Iterator[int]:
        yield from range(limit)

    return count


@pytest.fixture(scope="module")
def plane() -> Iterator[LocalModal]:
    with LocalModal(input_plane=True, capacity=2) as local:
        yield local
    assert local.unimplemented == {}
    assert local.errors == []


@pytest.fixture(scope="module")
def made(plane: LocalModal) -> Iterator[dict[str, Any]]:
    app = modal.App("input-plane")
    retries = modal.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0)
    functions = {
        "work": app.function(serialized=True, name="work", retries=retries, max_containers=1)(made_work()),
        "count": app.function(serialized=True, name="count", is_generator=True)(made_count()),
    }
    with plane.client() as client, app.run(client=client):
        yield functions


def test_calls_go_through_the_input_plane(made: dict[str, Any], plane: LocalModal) -> None:
    before = plane.rpcs["AttemptStart"]
    value = os.urandom(3_000_000)
    assert made["work"].remote("echo", value) == value
    assert plane.rpcs["AttemptStart"] == before + 1


def test_maps_go_through_the_input_plane(made: dict[str, Any], plane: LocalModal) -> None:
    arguments = [("echo", number) for number in range(60)]
    assert list(made["work"].starmap(arguments)) == list(range(60))
    assert plane.rpcs["MapAwait"] > 0


def test_failures_are_tried_again(made: dict[str, Any], plane: LocalModal, tmp_path: Path) -> None:
    arguments = [("fail", str(tmp_path / "one"), 2), ("fail", str(tmp_path / "two"), 0)]
    assert list(made["work"].starmap(arguments)) == ["lived", "lived"]
    with pytest.raises(OSError, match="not yet"):
        made["work"].remote("fail", str(tmp_path / "three"), 9)
    assert (tmp_path / "three").read_text() == "xxx"


def test_a_container_that_dies_loses_nothing(made: dict[str, Any], plane: LocalModal, tmp_path: Path) -> None:
    assert made["work"].remote("die", str(tmp_path / "times"), 2) == "lived"


def test_a_generator_sends_values_as_it_goes(made: dict[str, Any], plane: LocalModal) -> None:
    assert list(made["count"].remote_gen(5)) == [0, 1, 2, 3, 4]
