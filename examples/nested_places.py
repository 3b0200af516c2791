"""Here, over there, and here again: a pipeline that lives in another interpreter, in the middle of one that lives here.

    python nested_places.py

`SubprocessBackend` starts fresh interpreters that get bytes and nothing else, as a container in a cloud does. Any other
backend may stand in its place; the functions and the outer pipeline stay as they are.
"""

from __future__ import annotations

import os

from hypernodes import LocalBackend, Pipeline, node
from hypernodes.testing import SubprocessBackend


@node(output_name="words")
def split(text: str) -> list[str]:
    return text.split()


@node(output_name=("lengths", "process"))
def measure(words: list[str]) -> tuple[list[int], int]:
    return [len(word) for word in words], os.getpid()


@node(output_name="report")
def report(words: list[str], lengths: list[int], process: int) -> str:
    where = "here" if process == os.getpid() else "elsewhere"
    return f"{dict(zip(words, lengths, strict=True))}, measured {where}, reported here"


far = Pipeline(nodes=[measure], name="far", backend=SubprocessBackend())
pipeline = Pipeline(nodes=[split, far, report], name="near", backend=LocalBackend())

if __name__ == "__main__":
    print(pipeline.explain(output_name="report"), end="\n\n")
    print(pipeline.run(text="to be or not to be", output_name="report"))
    for line in pipeline.map([{"text": "a bb ccc"}, {"text": "dddd"}], output_name="report"):
        print(line)
