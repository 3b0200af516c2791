"""The same pipelines written for others, as their documentation shows: what each costs over a hand-written function."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from _measure import Table, chosen, compare
from _shapes import chain, chain_wiring, functions

Run = Callable[[], Any]


def hypernodes(length: int) -> tuple[str, Run, Run]:
    pipeline, last = chain(length).pipeline, f"v{length - 1}"
    items = [{"x": at} for at in range(1000)]
    return "hypernodes", lambda: pipeline.run(x=1, output_name=last), lambda: pipeline.map(items, output_name=last)


def pipefunc(length: int) -> tuple[str, Run, Run]:
    """Runs are calls of the pipeline; the map is pipefunc's own, with a mapspec on each function."""
    from pipefunc import PipeFunc, Pipeline

    wiring, last = chain_wiring(length), f"v{length - 1}"
    made = functions(wiring)
    plain = Pipeline([PipeFunc(made[name], name) for name, _ in wiring])
    mapped = Pipeline([PipeFunc(made[name], name, mapspec=f"{reads[0]}[i] -> {name}[i]") for name, reads in wiring])
    xs = list(range(1000))
    options: dict[str, Any] = {"parallel": False, "storage": "dict", "show_progress": False, "return_results": True}
    return (
        f"pipefunc {version('pipefunc')}",
        lambda: plain(last, x=1),
        lambda: list(mapped.map({"x": xs}, **options)[last].output),
    )


def hamilton(length: int) -> tuple[str, Run, Run]:
    """It has no map over plain items in one process: the driver runs once for each, as its documentation does."""
    from hamilton import ad_hoc_utils, base, driver

    made = functions(chain_wiring(length)).values()
    for function in made:
        function.__annotations__ = {**dict.fromkeys(function.__code__.co_varnames, int), "return": int}
    module = ad_hoc_utils.create_temporary_module(*made)
    last = f"v{length - 1}"
    built = driver.Builder().with_modules(module).with_adapter(base.DictResult()).build()
    return (
        f"apache-hamilton {version('apache-hamilton')}",
        lambda: built.execute([last], inputs={"x": 1})[last],
        lambda: [built.execute([last], inputs={"x": at})[last] for at in range(1000)],
    )


def by_hand(length: int) -> Callable[[int], int]:
    """A straight-line function of the input that returns the last value."""
    made = functions(chain_wiring(length))
    lines = [f"    {name} = call_{name}({reads[0]})" for name, reads in chain_wiring(length)]
    namespace: dict[str, Any] = {f"call_{name}": function for name, function in made.items()}
    exec("\n".join(["def plain(x):", *lines, f"    return v{length - 1}"]), namespace)
    written: Callable[[int], int] = namespace["plain"]
    return written


def main() -> None:
    for length in (10, 100):
        plain = by_hand(length)
        table = Table(
            f"A chain of {length} trivial nodes", "what", "one run", "over plain", "map of 1,000", "over plain"
        )
        for make, needs in ((hypernodes, "hypernodes"), (pipefunc, "pipefunc"), (hamilton, "hamilton")):
            if find_spec(needs) is None:
                table.row(needs, "not installed", "", "", "")
                continue
            name, run, mapped = make(length)
            assert run() == plain(1)
            assert mapped() == [plain(at) for at in range(1000)]
            quick = needs == "hypernodes"
            one = compare(run, lambda: plain(1), calls=1000 if quick else 20, turns=15)  # noqa: B023
            many = compare(
                mapped,
                lambda: [plain(at) for at in range(1000)],  # noqa: B023
                turns=15 if quick else 5,
                warmups=1,
            )
            table.row(name, chosen(one.ours), f"{one.ratio:.3g} x", chosen(many.ours), f"{many.ratio:.3g} x")


if __name__ == "__main__":
    main()
