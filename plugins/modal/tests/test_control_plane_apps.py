"""Apps that are deployed, apps inside containers, classes; who may call, and what it costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes_modal.testing import LocalModal

MODULE = """
import modal

app = modal.App("shop")


@app.function(max_containers=1)
def total(*prices):
    return sum(prices)


@app.function(max_containers=1)
def taxed(price):
    return 2 * total.remote(price, 1)


@app.cls(max_containers=1)
class Till:
    currency: str = modal.parameter()

    @modal.enter()
    def open(self):
        self.opened = True

    @modal.method()
    def show(self, price):
        assert self.opened
        return f"{price} {self.currency}"
"""


@pytest.fixture(scope="module")
def shop(local_modal_session: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module of an app, as a user writes it, deployed."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "shop_app.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    try:
        import shop_app

        shop_app.app.deploy(name="shop")
        yield shop_app
    finally:
        sys.path.remove(str(folder))


@pytest.mark.slow
def test_a_deployed_function_is_found_by_name_and_runs(shop: Any, local_modal: LocalModal) -> None:
    assert modal.Function.from_name("shop", "total").remote(1, 2) == 3
    assert [app.state for app in local_modal.apps if app.name == "shop"] == ["deployed"]


@pytest.mark.slow
def test_a_function_calls_another_of_its_app(shop: Any, local_modal: LocalModal) -> None:
    assert modal.Function.from_name("shop", "taxed").remote(4) == 10


@pytest.mark.slow
def test_a_class_has_parameters_and_methods(shop: Any, local_modal: LocalModal) -> None:
    till = modal.Cls.from_name("shop", "Till")(currency="EUR")
    assert till.show.remote(3) == "3 EUR"


@pytest.mark.slow
def test_what_is_not_deployed_is_named(shop: Any, local_modal: LocalModal) -> None:
    with pytest.raises(modal.exception.NotFoundError, match="'refund' from the 'shop' app"):
        modal.Function.from_name("shop", "refund").hydrate()
    with pytest.raises(modal.exception.NotFoundError, match="'total' from the 'kiosk' app"):
        modal.Function.from_name("kiosk", "total").hydrate()


@pytest.mark.slow
def test_an_app_runs_inside_a_container_of_another(local_modal: LocalModal) -> None:
    def outer(number: int) -> tuple[int, int]:

        import modal

        def inner(number: int) -> tuple[int, int]:
            return os.getpid(), number + 1

        app = modal.App("inner")
        function = app.function(serialized=True, name="inner")(inner)
        with app.run():
            pid, value = function.remote(number)
        return (pid != os.getpid(), value)  # type: ignore[return-value]

    app = modal.App("outer")
    function = app.function(serialized=True, name="outer")(outer)
    with app.run():
        assert function.remote(1) == (True, 2)
    assert [app.state for app in local_modal.apps if app.name == "inner"] == ["stopped"]


@pytest.mark.slow
def test_a_waiting_container_takes_no_room_from_what_it_waits_for(tmp_path: Path) -> None:
    def outer(depth: int) -> int:
        import modal

        if depth == 0:
            return 0
        return 1 + modal.Function.from_name("deep", "outer").remote(depth - 1)  # type: ignore[no-any-return]

    with LocalModal(capacity=1) as local, local.use():
        app = modal.App("deep")
        function = app.function(serialized=True, name="outer")(outer)
        app.deploy()
        assert function.remote(2) == 2
    assert local.unimplemented == {}


@pytest.mark.slow
def test_no_function_is_left_without_a_container(tmp_path: Path) -> None:
    def wait(gate: str) -> None:
        import time
        from pathlib import Path

        while not Path(gate).exists():
            time.sleep(0.01)

    def release(gate: str) -> None:
        from pathlib import Path

        Path(gate).touch()

    with LocalModal(capacity=1) as local, local.use():
        app = modal.App("two")
        waits = app.function(serialized=True, name="wait")(wait)
        releases = app.function(serialized=True, name="release")(release)
        with app.run():
            calls = [waits.spawn(str(tmp_path / "gate")) for _ in range(2)]
            releases.remote(str(tmp_path / "gate"))
            assert [call.get(timeout=60) for call in calls] == [None, None]


def test_a_wrong_token_is_refused(local_modal: LocalModal) -> None:
    with (
        pytest.raises(modal.exception.AuthError, match="LocalModal does not know this token"),
        modal.App("refused").run(client=modal.Client.from_credentials("ak-wrong", "as-wrong")),
    ):
        pass


def test_two_planes_know_nothing_of_each_other(local_modal: LocalModal) -> None:
    with LocalModal() as other, other.client() as client, modal.App("other").run(client=client):
        assert [app.name for app in other.apps] == ["other"]
        assert "other" not in [app.name for app in local_modal.apps]


def test_an_app_that_another_plane_knows_is_refused(local_modal: LocalModal) -> None:
    app = modal.App("moved")
    app.function(serialized=True, name="nothing")(lambda: None)
    with LocalModal() as other, other.client() as client, app.run(client=client):
        pass
    with pytest.raises(modal.exception.NotFoundError, match=r"Mount 'mo-\w+' not found"), app.run():
        pass


def test_tags_of_an_app_are_kept(local_modal: LocalModal) -> None:
    app = modal.App("tagged", tags={"run": "1"})
    with app.run():
        [known] = [one for one in local_modal.apps if one.name == "tagged"]
        assert known.tags == {"run": "1"}
        app.set_tags({"run": "2"})
        assert known.tags == {"run": "2"}


@pytest.mark.slow
def test_what_an_app_prints_can_be_shown(local_modal: LocalModal, capfd: pytest.CaptureFixture[str]) -> None:
    app = modal.App("loud")
    function = app.function(serialized=True, name="loud")(lambda: print("from", "inside"))
    with modal.enable_output(), app.run():
        function.remote()
        [container] = [one for one in local_modal.containers if one.function.name == "loud"]
        local_modal.wait(lambda: "from inside" in container.output)
        if "logs" in dir(modal.App):  # an older client cannot ask
            assert "".join(entry.message for entry in app.logs.tail(5, source="stdout")).endswith("from inside\n")
    assert "from inside" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(getattr(modal, "Workspace", None), "from_context"), reason="this version of modal tells no rates"
)
def test_what_containers_used_is_charged() -> None:
    with LocalModal(rates={"cpu": "3600", "memory": "0", "a100": "7200"}) as local, local.use():
        app = modal.App("costly", tags={"run": "7"})
        function = app.function(serialized=True, name="add", cpu=2, gpu="A100")(lambda: 1)
        with app.run():
            function.remote()
        workspace = modal.Workspace.from_context()
        assert workspace.billing.rates()["cpu"] == Decimal("3600")
        now = datetime.now(UTC)
        [item] = workspace.billing.report(start=now - timedelta(hours=1), end=now, tag_names=["run"])
        [container] = local.containers
        local.wait(lambda: container.ended is not None)
        assert container.ended is not None
        assert 0 < item.cost <= Decimal(4 * (container.ended - container.started + 1))
        assert item.tags == {"run": "7"}
        assert item.cost_by_resource.keys() == {"cpu", "memory", "a100"}
    assert local.unimplemented == {}
