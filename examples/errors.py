"""One item fails: its neighbours are untouched, and the failure says which item, in which node of which pipeline.

python errors.py
"""

from __future__ import annotations

from hypernodes import Failure, GraphError, LocalBackend, Pipeline, node


@node(output_name="amount")
def parse(line: str) -> float:
    return float(line.removesuffix(" EUR"))


@node(output_name="share")
def divide(amount: float, people: int) -> float:
    return round(amount / people, 2)


bill = Pipeline(nodes=[parse, divide], name="bill")
pipeline = Pipeline(nodes=[bill], name="dinner", backend=LocalBackend(engine="multiprocess", max_workers=2))

ROWS = [
    {"line": "90 EUR", "people": 3},
    {"line": "12,50 EUR", "people": 2},
    {"line": "40 EUR", "people": 0},
    {"line": "10 EUR", "people": 4},
]

if __name__ == "__main__":
    print("With on_error='return' a Failure stands in the place of each item that failed:")
    for row, share in zip(ROWS, pipeline.map(ROWS, output_name="share", on_error="return"), strict=True):
        if isinstance(share, Failure):
            path = " > ".join(share.path)
            print(f"  {row}: item {share.item} failed in {path}: {share.type_name}: {share.message}")
        else:
            print(f"  {row}: {share}")

    print("\nOtherwise the first of them raises, as the exception it was, with notes that say where:")
    try:
        pipeline.map(ROWS, output_name="share")
    except ValueError as error:
        print(f"  {type(error).__name__}: {error}")
        print("".join(f"    {line}\n" for note in error.__notes__ for line in note.splitlines()), end="")

    print("\nWhat is wrong with a call itself is said before any node runs:")
    try:
        pipeline.run(lin="90 EUR", people=3)
    except GraphError as error:
        print(f"  {type(error).__name__}: {error}")
