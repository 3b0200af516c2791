"""What a batch node among others costs over the loop in blocks that somebody would write for it."""

from __future__ import annotations

from typing import Any

from _measure import Table, compare

from hypernodes import Pipeline, node

SIZE = 64
ITEMS = [{"text": f"  Some   words of item {at}, " + "and a few  more words " * 5} for at in range(10_000)]


@node(output_name="cleaned")
def clean(text: str) -> str:
    return " ".join(text.lower().split())


@node(output_name="vector", batch_size=SIZE)
def embed(cleaned: list[str]) -> list[tuple[int, ...]]:
    return [tuple(map(ord, text[:40])) for text in cleaned]


@node(output_name="score")
def rate(vector: tuple[int, ...]) -> float:
    return sum([value * value for value in vector]) ** 0.5


def sequential() -> None:
    table = Table(f"10,000 items through item -> batch({SIZE}) -> item, sequential")
    pipeline = Pipeline([clean, embed, rate])
    clean_one, embed_all, rate_one = clean.func, embed.func, rate.func

    def rows() -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for start in range(0, len(ITEMS), SIZE):
            cleaned = [clean_one(item["text"]) for item in ITEMS[start : start + SIZE]]
            for text, vector in zip(cleaned, embed_all(cleaned), strict=True):
                results.append({"cleaned": text, "vector": vector, "score": rate_one(vector)})
        return results

    def values() -> list[float]:
        results: list[float] = []
        for start in range(0, len(ITEMS), SIZE):
            vectors = embed_all([clean_one(item["text"]) for item in ITEMS[start : start + SIZE]])
            results += [rate_one(vector) for vector in vectors]
        return results

    def columns() -> dict[str, list[Any]]:
        cleaned: list[str] = []
        vectors: list[Any] = []
        for start in range(0, len(texts), SIZE):
            some = [clean_one(text) for text in texts[start : start + SIZE]]
            cleaned += some
            vectors += embed_all(some)
        return {"cleaned": cleaned, "vector": vectors, "score": [rate_one(vector) for vector in vectors]}

    texts = [item["text"] for item in ITEMS]
    assert pipeline.map(ITEMS) == rows()
    assert pipeline.map(inputs={"text": texts}, map_over="text") == columns()
    table.pair("rows to dicts", compare(lambda: pipeline.map(ITEMS), rows), "<= 1.1")
    table.pair("rows to values", compare(lambda: pipeline.map(ITEMS, output_name="score"), values), "<= 1.1")
    table.pair("in columns", compare(lambda: pipeline.map(inputs={"text": texts}, map_over="text"), columns), "<= 1.1")
    table.pair("on_error='return'", compare(lambda: pipeline.map(ITEMS, on_error="return"), rows))
    table.pair("map_iter", compare(lambda: sum(len(row) for row in pipeline.map_iter(ITEMS)), rows))
    outer = Pipeline([pipeline.as_node(input_mapping={"texts": "text"}, map_over="texts")])
    table.pair("a run that maps the pipeline over a list", compare(lambda: outer.run(texts=texts), columns))
    blocks = [{"texts": texts[at : at + 10]} for at in range(0, len(texts), 10)]
    assert [score for row in outer.map(blocks) for score in row["score"]] == columns()["score"]
    table.pair("a map over 1,000 lists of 10", compare(lambda: outer.map(blocks), columns))


if __name__ == "__main__":
    sequential()
