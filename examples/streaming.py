"""Results as they come, from items without an end, in threads.

    python streaming.py

`map_iter` draws items only a little ahead of the results that are taken, so memory stays bounded; leaving the loop and
closing the stream stops what is under way.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from hypernodes import LocalBackend, Pipeline, node


@node(output_name="answer")
def ask(number: int) -> int:
    time.sleep(0.05)  # a service that takes its time
    return number * number


@node(output_name="line")
def tell(number: int, answer: int) -> str:
    return f"{number} squared is {answer}"


drawn = itertools.count()


def questions() -> Iterator[dict[str, Any]]:
    """Rows without an end."""
    for number in drawn:
        yield {"number": number}


pipeline = Pipeline(nodes=[ask, tell], name="squares", backend=LocalBackend(engine="threaded", max_workers=8))

if __name__ == "__main__":
    begun = time.perf_counter()
    with closing(pipeline.map_iter(questions(), output_name="line")) as lines:
        for line in itertools.islice(lines, 24):
            print(f"{time.perf_counter() - begun:.2f} s  {line}")
    print(f"24 results taken; {next(drawn)} items were drawn when the stream was closed")
