"""What can be said about a function: retries, timeouts, variants, concurrency, the autoscaler; how its start fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes_modal.testing import LocalModal

pytestmark = pytest.mark.slow


def made_flaky() -> Any:
    def flaky(times: str, count: int) -> int:
        """Fails so many times, whichever container runs it."""
        from pathlib import Path

        file = Path(times)
        with file.open("a") as out:
            out.write("x")
        if file.stat().st_size <= count:
            raise OSError("not yet")
        return file.stat().st_size

    return flaky


def made_slow() -> Any:
    def slow(seconds: float) -> str:
        import time

        time.sleep(seconds)
        return "done"

    return slow


def made_together() -> Any:
    async def together(folder: str, name: str, count: int) -> int:
        """Ends when so many of its kind run at once."""
        import asyncio
        import os
        from pathlib import Path

        (Path(folder) / name).touch()
        while len(list(Path(folder).iterdir())) < count:
            await asyncio.sleep(0.01)
        return os.getpid()

    return together


def made_batch() -> Any:
    def batch(numbers: list[int]) -> list[tuple[int, int]]:
        return [(number, len(numbers)) for number in numbers]

    return batch


def made_count() -> Any:
    def count(limit: int) -> Iterator[int]:
        yield from range(limit)
        if limit == 3:
            raise LookupError("three")

    return count


@pytest.fixture(scope="module")
def made(modal_anywhere_session: LocalModal | None) -> Iterator[dict[str, Any]]:
    app = modal.App("functions", image=modal.Image.debian_slim(python_version=version()))
    retries = modal.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0)
    with_batches = modal.batched(max_batch_size=4, wait_ms=60_000)
    functions = {
        "flaky": app.function(serialized=True, name="flaky", retries=retries, max_containers=1)(made_flaky()),
        "slow": app.function(serialized=True, name="slow", timeout=1, memory=512, cpu=2)(made_slow()),
        "together": app.function(serialized=True, name="together", max_containers=1)(
            modal.concurrent(max_inputs=3)(made_together())
        ),
        "batch": app.function(serialized=True, name="batch", max_containers=1)(with_batches(made_batch())),
        "count": app.function(serialized=True, name="count", is_generator=True)(made_count()),
    }
    with app.run():
        yield functions


def version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_failing_call_is_tried_again(made: dict[str, Any], local_modal: LocalModal, tmp_path: Path) -> None:
    assert made["flaky"].remote(str(tmp_path / "times"), 2) == 3


def test_a_failing_spawned_call_is_tried_again(made: dict[str, Any], local_modal: LocalModal, tmp_path: Path) -> None:
    assert made["flaky"].spawn(str(tmp_path / "times"), 2).get(timeout=60) == 3


def test_failing_items_of_a_map_are_tried_again(made: dict[str, Any], local_modal: LocalModal, tmp_path: Path) -> None:
    arguments = [(str(tmp_path / "one"), 2), (str(tmp_path / "two"), 0), (str(tmp_path / "three"), 9)]
    *values, error = made["flaky"].starmap(arguments, return_exceptions=True)
    assert values == [3, 1]
    assert isinstance(error, OSError)
    assert (tmp_path / "three").read_text() == "xxx"


def test_what_takes_too_long_ends_with_its_container(made: dict[str, Any], local_modal: LocalModal) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError, match="hit its timeout of 1s"):
        made["slow"].remote(600)
    inside = [one for one in local_modal.containers if one.function.name == "slow" and not one.function.base]
    local_modal.wait(lambda: all(one.state == "gone" for one in inside))


def test_a_variant_has_its_own_resources_and_containers(made: dict[str, Any], local_modal: LocalModal) -> None:
    variant = made["slow"].with_options(gpu="A100-80GB:2", memory=1024, timeout=77, max_containers=1)
    assert variant.remote(0) == "done"
    [base] = [one for one in local_modal.functions if one.name == "slow" and not one.base]
    [made_of_it] = [one for one in local_modal.functions if one.base == base.id]  # no other test makes one
    assert (base.resources.memory_mb, base.resources.milli_cpu, base.gpu, base.timeout) == (512, 2000, "", 1)
    assert (made_of_it.resources.memory_mb, made_of_it.gpu, made_of_it.timeout) == (1024, "A100-80GB:2", 77)
    assert made_of_it.settings.max_containers == 1
    assert len([one for one in local_modal.containers if one.function is made_of_it]) == 1


def test_one_container_takes_several_inputs_at_once(
    made: dict[str, Any], local_modal: LocalModal, tmp_path: Path
) -> None:
    pids = set(made["together"].starmap([(str(tmp_path), name, 3) for name in "abc"]))
    assert len(pids) == 1


def test_inputs_are_put_together_to_batches(made: dict[str, Any], modal_anywhere: object) -> None:
    assert list(made["batch"].map(range(4))) == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_generator_sends_values_as_it_goes(made: dict[str, Any], modal_anywhere: object) -> None:
    assert list(made["count"].remote_gen(5)) == [0, 1, 2, 3, 4]
    with pytest.raises(LookupError, match="three"):
        list(made["count"].remote_gen(3))


def test_the_autoscaler_is_told_and_told_again(made: dict[str, Any], local_modal: LocalModal) -> None:
    function = made["flaky"]
    [known] = [one for one in local_modal.functions if one.name == "flaky"]
    assert known.settings.max_containers == 1
    if hasattr(function, "autoscaler"):
        function.autoscaler.update(min_containers=1, scaledown_window=240)
    else:
        function.update_autoscaler(min_containers=1, scaledown_window=240)
    assert (known.settings.min_containers, known.settings.scaledown_window) == (1, 240)
    assert known.settings.max_containers == 1
    local_modal.wait(lambda: any(one.function is known and one.state == "ready" for one in local_modal.containers))
    assert function.get_current_stats().num_total_runners == 1


def test_an_idle_container_goes_after_its_window(local_modal: LocalModal) -> None:
    app = modal.App("short")
    function = app.function(serialized=True, name="short", scaledown_window=2)(made_slow())
    with app.run():
        assert function.remote(0) == "done"
        [container] = [one for one in local_modal.containers if one.function.name == "short"]
        local_modal.wait(lambda: container.state == "gone")
        assert container.exit_code == 0


def test_a_container_that_is_retired_ends_in_order_and_another_takes_its_place(local_modal: LocalModal) -> None:
    app = modal.App("retired")
    function = app.function(serialized=True, name="retired")(made_slow())
    with app.run():
        assert function.remote(0) == "done"
        [container] = [one for one in local_modal.containers if one.function.name == "retired"]
        local_modal.retire(container)
        assert function.remote(0) == "done"
        local_modal.wait(lambda: container.state == "gone")
        assert (container.exit_code, container.served) == (0, 1)


def test_an_app_that_ends_takes_its_containers_along(local_modal: LocalModal, tmp_path: Path) -> None:
    app = modal.App("ending")
    function = app.function(serialized=True, name="ending")(made_slow())
    with app.run():
        call = function.spawn(600)
        local_modal.wait(lambda: any(one.running and one.function.name == "ending" for one in local_modal.containers))
    [container] = [one for one in local_modal.containers if one.function.name == "ending"]
    local_modal.wait(lambda: container.state == "gone")
    with pytest.raises(modal.exception.RemoteError, match="was stopped"):
        modal.FunctionCall.from_id(call.object_id).get(timeout=60)


def test_an_app_that_somebody_stops_ends_its_calls(local_modal: LocalModal) -> None:
    app = modal.App("stopped")
    function = app.function(serialized=True, name="stopped")(made_slow())
    with app.run():
        call = function.spawn(600)
        [known] = [one for one in local_modal.apps if one.name == "stopped"]
        local_modal.stop_app(known)
        with pytest.raises(modal.exception.RemoteError, match="was stopped"):
            call.get(timeout=60)
        with pytest.raises(modal.exception.NotFoundError, match="nothing can be called in it"):
            function.remote(0)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


def test_a_function_whose_containers_die_at_once_fails(local_modal: LocalModal) -> None:
    deadly = Deadly()

    def never() -> None:
        print(deadly)

    app = modal.App("deadly")
    function = app.function(serialized=True, name="never")(never)
    with app.run(), pytest.raises(modal.exception.InternalFailure, match=r"'never' cannot start.*exit code 9"):
        function.remote()


def test_a_function_that_needs_a_missing_module_fails_and_names_it(local_modal: LocalModal, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def work():\n    return 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here

        app = modal.App("missing")
        function = app.function(serialized=True, name="work")(only_here.work)
        with app.run(), pytest.raises(Exception, match="only_here"):
            function.remote()
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["only_here"]
