"""The search example does what its README says, and gives the same index and the same results on every backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("bm25s", reason="the example's library: pip install -r examples/search/requirements.txt")

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "search"
SLICE = ("calendar", "datetime", "email.utils", "time")
BACKENDS = ["local", "local:threaded", "local:multiprocess", "subprocess"]
BEST = {"datetime.datetime.strptime", "email.utils.parsedate_tz"}
"""The first two answers; which is the first depends on the texts of this Python."""
PARTS = ("corpus", "ranking", "search", "text")


@pytest.fixture(scope="module")
def example() -> Iterator[SimpleNamespace]:
    """The modules of the example, imported the way the script imports them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for part in PARTS:
            patch.delitem(sys.modules, part, raising=False)
        yield SimpleNamespace(**{part: __import__(part) for part in PARTS})
        for part in PARTS:
            patch.delitem(sys.modules, part)


@pytest.fixture(scope="module")
def plain_index(example: SimpleNamespace) -> dict[str, Any]:
    return index_on(example.search, "local")


def index_on(search: ModuleType, backend: str) -> dict[str, Any]:
    """Everything the index holds after the whole pipeline, its mapped part included, ran on the backend."""
    with search.backend_of(backend) as place:
        index = search.search.with_backend(place).run(modules=search.module_names(*SLICE), output_name="index")
    arrays = {name: index.weights.scores[name].tolist() for name in ("data", "indices", "indptr")}
    return {"names": index.names, "summaries": index.summaries, "terms": index.weights.vocab_dict, **arrays}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "search.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_index_is_the_same_on_every_backend(
    example: SimpleNamespace, plain_index: dict[str, Any], backend: str
) -> None:
    found = index_on(example.search, backend)
    assert len(found["names"]) == len(set(found["names"])) > 100
    assert found == plain_index


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_answer_is_the_same_on_every_backend(example: SimpleNamespace, backend: str) -> None:
    progress: list[tuple[int, int]] = []
    modules = example.corpus.module_names(*SLICE)

    def answer(place: str) -> Any:
        backend = example.search.backend_of(place)
        return example.search.answer(
            "how do I parse dates", backend=backend, modules=modules, progress=lambda *now: progress.append(now)
        )

    found, plain = answer(backend), answer("local")
    assert found._replace(seconds=0) == plain._replace(seconds=0)
    assert {hit.name for hit in found.hits[:2]} == BEST
    assert [read for read, _ in progress] == [*range(1, found.modules + 1)] * 2
    assert progress[-1] == (found.modules, found.documents)


@pytest.mark.slow
def test_script_prints_ranked_results_and_where_each_node_ran() -> None:
    found = run("parse", "dates", "--only", *SLICE, "--top", "2")
    assert (found.returncode, found.stderr) == (0, "")
    assert " modules of Python " in found.stdout
    ranked = [line.split() for line in found.stdout.splitlines() if line.startswith(("  1. ", "  2. "))]
    assert {name for _, name, _ in ranked} == BEST
    assert "     Convert a date string to a time tuple.\n" in found.stdout
    assert "  3. " not in found.stdout
    assert "module > document > tokenize (mapped 2x)   local:sequential" in found.stdout
    assert "--backend local:multiprocess" in found.stdout


@pytest.mark.slow
def test_query_without_an_answer_says_so() -> None:
    found = run("xyzzy", "--only", "keyword")
    assert (found.returncode, found.stderr) == (1, "")
    assert "nothing found: no word of 'xyzzy' occurs in them" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "the following arguments are required: query"),
        ((" ",), "the query is empty; say in a few words what you look for"),
        (("dates", "--only", "nosuch"), "no module of the standard library is called 'nosuch'"),
        (("dates", "--top", "0"), "argument --top: '0' is not a number above zero"),
        (("dates", "--backend", "mars"), "there is no place 'mars'; give local, "),
        (("dates", "--backend", "local:theaded"), "did you mean 'threaded'?"),
    ],
)
def test_mistake_in_the_arguments_gets_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    found = run(*arguments)
    assert found.returncode == 2
    assert sentence in found.stderr
    assert "Traceback" not in found.stderr


def test_no_module_of_the_corpus_is_executed(example: SimpleNamespace) -> None:
    names = example.corpus.module_names()
    assert len(names) > 300
    assert not {"antigravity", "this", "turtledemo", "idlelib", "test"} & {name.partition(".")[0] for name in names}
    before = set(sys.modules)
    for name in ("turtle", "ftplib", "tkinter.colorchooser"):
        assert example.corpus.outline(name, example.corpus.load(name))[0]
    assert set(sys.modules) - before == set()


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("collections.abc.Mapping.get", "_collections_abc"),
        ("datetime.date.fromisoformat", "datetime"),
        ("email.utils.parsedate", "email.utils"),
        ("math.sqrt", "math"),
        ("os.path.join", "posixpath"),
        ("str.split", "builtins"),
    ],
)
def test_documents_have_the_names_that_users_know(example: SimpleNamespace, name: str, module: str) -> None:
    if name.startswith("datetime.") and sys.version_info >= (3, 12):
        module = "_pydatetime"
    names, docs = example.corpus.outline(module, example.corpus.load(module))
    assert dict(zip(names, docs, strict=True))[name]
    assert module in example.corpus.module_names()


@pytest.mark.parametrize(
    ("doc", "summary"),
    [
        ("Return the sum.  More follows.", "Return the sum."),
        ("Join two\npaths.\n\nMore.", "Join two paths."),
        ("sqrt(x, /) -> float\n\nReturn the root, e.g. of 4.", "Return the root, e.g. of 4."),
        ("Call :func:`open` on ``path``", "Call open on path"),
        (">>> 1 + 1\nShow it.", "Show it."),
        ("count(value) -> integer", "count(value) -> integer"),
        ("", ""),
    ],
)
def test_summary_is_the_first_sentence(example: SimpleNamespace, doc: str, summary: str) -> None:
    assert example.text.summarize(example.text.clean(doc)) == summary


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("How do I parse the dates?", ["pars", "dat"]),
        ("parsing parsed parses", ["pars", "pars", "pars"]),
        ("OrderedDict", ["ordereddict", "order", "dict", "dictionary"]),
        ("running copies of 2 classes", ["run", "copy", "2", "class"]),
        ("string bed ring", ["string", "bed", "ring"]),
    ],
)
def test_words_meet_under_their_stems(example: SimpleNamespace, text: str, terms: list[str]) -> None:
    assert example.text.Lexicon().terms_of(text) == terms


def test_query_joins_neighbours(example: SimpleNamespace) -> None:
    assert example.text.Lexicon().query_terms("deep copy, deep copy") == ["deep", "copy", "deepcopy", "copydeep"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "local:threaded"])
def test_many_queries_are_answered_as_each_alone(example: SimpleNamespace, backend: str) -> None:
    index = example.search.search.run(modules=example.search.module_names(*SLICE), output_name="index")
    queries = ["parse dates", "leap year", "xyzzy", "how do I parse dates", ""]
    with example.search.backend_of(backend) as place:
        asking = example.search.search.with_backend(place)
        found = asking.map([{"query": query} for query in queries], inputs={"index": index}, output_name="hits")
    assert found == [example.search.search.run(index=index, query=query, output_name="hits") for query in queries]
    assert found[0] and found[2] == found[4] == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "local:multiprocess"])
def test_second_search_finds_everything_in_the_cache(example: SimpleNamespace, tmp_path: Path, backend: str) -> None:
    modules = example.search.module_names(*SLICE)
    options = {"backend": example.search.backend_of("local"), "modules": modules, "cache": str(tmp_path / "cache")}
    first = example.search.answer("parse dates", **options)
    ran: list[str] = []
    again = example.search.answer("parse dates", **{**options, "backend": example.search.backend_of(backend)})
    assert again.hits == first.hits
    with example.search.backend_of(backend) as place:
        watched = example.search.search.with_options(
            backend=place,
            cache=options["cache"],
            callbacks=[lambda event: ran.append(event.name) if event.kind == "node" and event.status == "ok" else None],
        )
        assert watched.run(modules=modules, query="parse dates", top=5, output_name="hits") == first.hits
    assert ran == ["make_index", "rank"]  # here the whole is one pipeline: its lists have other keys than when given
