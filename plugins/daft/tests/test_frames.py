"""Data in, data out: pipelines over dataframes and files, as lazy dataframes."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypernodes import (
    Failure,
    GraphError,
    LocalBackend,
    MemoryCache,
    MissingInputError,
    Pipeline,
    UnknownInputError,
    UnknownOutputError,
    node,
    resource,
)
from hypernodes.testing import compare
from hypernodes_daft import ColumnTypeError, DaftEngine, NativeMismatchError, _runner, map_frame, native

daft = _runner.native()


@node(output_name="cleaned")
def clean(text: str) -> str:
    return text.strip().lower()


@node(output_name="length")
def measure(cleaned: str) -> int:
    return len(cleaned)


@node(output_name="tagged")
def tag(cleaned: str, length: int) -> Any:
    return {cleaned: (length, None)}


STATS = Pipeline(nodes=[clean, measure, tag], name="stats")
TEXTS = [" A ", "bb  ", "CCC", ""]


def texts() -> Any:
    return daft.from_pydict({"number": list(range(len(TEXTS))), "text": TEXTS})


def expected() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = STATS.map(inputs={"text": TEXTS}, map_over="text")
    return found


# values ---------------------------------------------------------------------------------------------------------------


def test_dataframe_goes_in_and_a_lazy_dataframe_comes_out() -> None:
    ran: list[str] = []

    @node(output_name="noted")
    def noted(text: str) -> str:
        ran.append(text)
        return text

    frame = map_frame(Pipeline(nodes=[noted]), texts())
    assert isinstance(frame, daft.DataFrame)
    assert not ran
    compare({"noted": TEXTS}, frame.to_pydict())
    assert sorted(ran) == sorted(TEXTS)


def test_values_are_those_of_a_map_and_columns_are_typed_by_annotation() -> None:
    frame = map_frame(STATS, texts(), keep=["number"])
    kinds = daft.DataType
    assert {field.name: field.dtype for field in frame.schema()} == {
        "number": kinds.int64(),
        "cleaned": kinds.string(),
        "length": kinds.int64(),
        "tagged": kinds.python(),
    }
    compare({"number": [0, 1, 2, 3], **expected()}, frame.to_pydict())


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_rows_keep_their_order_over_many_batches(batch_size: int) -> None:
    frame = daft.from_pydict({"x": list(range(2000))})

    @node(output_name="y")
    async def later(x: int) -> int:
        return x + 1

    found = map_frame(Pipeline(nodes=[later]), frame.limit(100 if batch_size == 1 else 2000), batch_size=batch_size)
    values = found.to_pydict()["y"]
    assert values == list(range(1, len(values) + 1))


def test_only_what_is_wanted_runs() -> None:
    refused = node(lambda length: 1 / 0, output_name="refused")
    pipeline = Pipeline(nodes=[clean, measure, refused])
    compare({"length": [1, 2, 3, 0]}, map_frame(pipeline, texts(), output_nodes=["length"]).to_pydict())


def test_inputs_are_shared_and_defaults_honoured() -> None:
    pipeline = Pipeline(nodes=[node(lambda number, by, plus=1: number * by + plus, output_name="y")])
    compare({"y": [1, 11, 21, 31]}, map_frame(pipeline, texts(), inputs={"by": 10}).to_pydict())


def test_column_goes_before_an_input_that_all_rows_share() -> None:
    assert map_frame(STATS, texts(), inputs={"text": "shared"}).to_pydict() == map_frame(STATS, texts()).to_pydict()


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_no_rows_give_no_rows_and_every_column_empty(on_error: str, tmp_path: Path) -> None:
    found = map_frame(STATS, texts().where(daft.col("number") > 1000), keep=["number"], on_error=on_error)
    assert not any(found.to_pydict().values())
    found.write_parquet(str(tmp_path / "out"))
    assert daft.read_parquet(f"{tmp_path}/out/*.parquet").column_names == found.column_names


def test_pipeline_that_reads_no_column_runs_for_each_row() -> None:
    pipeline = Pipeline(nodes=[node(lambda by: by, output_name="y")])
    compare(
        {"number": [0, 1, 2, 3], "y": [7] * 4},
        map_frame(pipeline, texts(), inputs={"by": 7}, keep=["number"]).to_pydict(),
    )


def test_nested_mapped_batched_and_cached_pipelines_run_as_ever() -> None:
    @node(output_name="total", batch_size=2)
    def total(doubled: list[list[int]]) -> list[int]:
        return [sum(one) for one in doubled]

    cell = Pipeline(nodes=[node(lambda x: 2 * x, output_name="doubled")], name="cell")
    mapped = cell.as_node(input_mapping={"xs": "x"}, map_over="xs")
    pipeline = Pipeline(nodes=[mapped, total], cache=MemoryCache())
    frame = daft.from_pydict({"xs": [[1, 2], [], [3], [1, 2]]})
    for _ in range(2):
        compare({"doubled": [[2, 4], [], [6], [2, 4]], "total": [6, 0, 6, 6]}, map_frame(pipeline, frame).to_pydict())


def test_pipelines_with_a_backend_of_their_own_run_there() -> None:
    inner = Pipeline(nodes=[clean], name="inner", backend=LocalBackend(engine=DaftEngine(partitions=3)))
    pipeline = Pipeline(nodes=[inner, measure], backend=LocalBackend(engine=DaftEngine(batch_size=2), max_workers=3))
    compare({"cleaned": ["a", "bb", "ccc", ""], "length": [1, 2, 3, 0]}, map_frame(pipeline, texts()).to_pydict())


def test_resource_is_built_once_for_all_batches_and_closed_with_the_dataframe() -> None:
    words: list[str] = []

    @resource
    def model() -> Iterator[str]:
        words.append("built")
        yield "m"
        words.append("closed")

    pipeline = Pipeline(nodes=[model, node(lambda number, model: f"{model}{number}", output_name="y")])
    frame = map_frame(pipeline, texts(), batch_size=1)
    assert frame.to_pydict()["y"] == ["m0", "m1", "m2", "m3"]
    assert words == ["built"]
    del frame
    # Daft may hold the plan of a query for a moment after its end.
    for _ in range(6000):
        if len(words) > 1:
            break
        gc.collect()
        time.sleep(0.01)
    assert words == ["built", "closed"]


def test_demand_that_this_machine_cannot_meet_is_refused() -> None:
    heavy = node(lambda number: number, output_name="y", resources={"cpus": 100_000})
    with pytest.raises(GraphError, match="100,000 CPUs"):
        map_frame(Pipeline(nodes=[heavy]), texts())


def test_limit_holds_over_batches(tmp_path: Path) -> None:
    lock, now, most, pause = threading.Lock(), 0, 0, threading.Event()

    @node(output_name="y", limit="calls")
    def call(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        pause.wait(0.005)  # a limit that does not hold shows in this time
        with lock:
            now -= 1
        return number

    pipeline = Pipeline(nodes=[call], limits={"calls": 1})
    assert map_frame(pipeline, texts(), batch_size=1).to_pydict() == {"y": [0, 1, 2, 3]}
    assert most == 1


# files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_files_go_in_and_out_by_glob(tmp_path: Path, kind: str) -> None:
    for part in range(3):
        getattr(texts(), f"write_{kind}")(str(tmp_path / "in" / str(part)))
    pattern = str(tmp_path / "in" / "*" / f"*.{kind}")
    frame = map_frame(STATS, pattern, output_nodes=["cleaned", "length"], keep=["number"]).where(
        daft.col("number") != 3
    )
    frame.write_parquet(str(tmp_path / "out"))
    found = daft.read_parquet(str(tmp_path / "out" / "*.parquet")).sort("number").to_pydict()
    assert found["cleaned"] == [word for word in ("a", "bb", "ccc") for _ in range(3)]


def test_list_of_paths_and_a_named_format_are_taken(tmp_path: Path) -> None:
    paths = []
    for part in range(2):
        path = tmp_path / f"part{part}"
        path.write_text("text\n a \n")
        paths.append(path)
    compare({"length": [1, 1]}, map_frame(STATS, paths, output_nodes=["length"], format="csv").to_pydict())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("data/things.xml", "'data/things.xml': the name does not say whether this is Parquet, CSV or JSON"),
        ("s3://bucket/folder", "give format='parquet', 'csv' or 'json'"),
        ([{"text": "a"}], "Lists of dicts go to pipeline.map"),
        (7, "not 7"),
        ([], "not \\[\\]"),
    ],
)
def test_source_that_is_none_is_refused(source: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        map_frame(STATS, source)


def test_file_with_pickled_objects_is_refused_unless_it_comes_as_a_dataframe(tmp_path: Path) -> None:
    map_frame(STATS, texts(), keep=["text"], output_nodes=["tagged"]).write_parquet(str(tmp_path / "out"))
    pattern = str(tmp_path / "out" / "*.parquet")
    with pytest.raises(ValueError, match="the column 'tagged' holds pickled Python objects, which may run any code"):
        map_frame(STATS, pattern)
    trusted = map_frame(Pipeline(nodes=[node(lambda tagged: len(tagged), output_name="y")]), daft.read_parquet(pattern))
    assert trusted.to_pydict() == {"y": [1] * 4}


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format='xml'; give 'parquet', 'csv' or 'json'"):
        map_frame(STATS, "data/*", format="xml")
    with pytest.raises(ValueError, match="the source is a dataframe"):
        map_frame(STATS, texts(), format="csv")


# typed columns --------------------------------------------------------------------------------------------------------


def odd(value: Any, annotation: Any) -> Pipeline:
    """A pipeline whose node says one type and gives, in row 2, this value."""

    def make(number: int) -> Any:
        return value if number == 2 else {str: "a", int: 1, float: 1.0, bool: True, bytes: b"a"}.get(annotation)

    make.__annotations__["return"] = annotation
    return Pipeline(nodes=[node(make, output_name="y")], name="odd")


@pytest.mark.parametrize(
    ("value", "annotation", "told"),
    [
        ("zz", int, "'zz' \\(str\\)"),
        (5.7, int, "5.7 \\(float\\)"),
        (True, int, "True \\(bool\\)"),
        (1, bool, "1 \\(int\\)"),
        (5, str, "5 \\(int\\)"),
        (5, float, "5 \\(int\\)"),
        ("a", bytes, "'a' \\(str\\)"),
        (None, int, "None \\(NoneType\\)"),
        (2**63, int, "9223372036854775808 \\(int\\)"),
        ("\ud800", str, r"'\\ud800' \(str\)"),
    ],
)
def test_value_that_does_not_fit_its_column_is_named_and_never_changed(value: Any, annotation: Any, told: str) -> None:
    with pytest.raises(ColumnTypeError, match=f"the column 'y' holds {annotation.__name__}, and row 2 gave {told}"):
        map_frame(odd(value, annotation), texts()).to_pydict()
    kept = map_frame(odd(value, annotation), texts(), types={"y": object}).to_pydict()["y"]
    assert kept[2] is value


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (str | None, ["", "\0", "é", None]),
        (int | None, [2**63 - 1, -(2**63), 0, None]),
        (float | None, [float("inf"), -0.0, 1e-320, None]),
        (bool | None, [True, False, True, None]),
        (bytes | None, [b"", b"\xff\0", b"a", None]),
    ],
    ids=str,
)
def test_typed_columns_give_back_what_went_in(annotation: Any, values: list[Any]) -> None:
    def make(number: int) -> Any:
        return values[number]

    make.__annotations__["return"] = annotation
    frame = map_frame(Pipeline(nodes=[node(make, output_name="y")]), texts())
    assert not frame.schema()["y"].dtype.is_python()
    compare({"y": values}, frame.to_pydict())


def test_column_of_a_type_of_dafts_is_checked_by_what_comes_back() -> None:
    kind = daft.DataType.list(daft.DataType.int64())
    make = node(lambda number: [number] if number < 3 else [1.5], output_name="y")
    good = map_frame(Pipeline(nodes=[make]), texts().where(daft.col("number") < 3), types={"y": kind})
    compare({"y": [[0], [1], [2]]}, good.to_pydict())
    with pytest.raises(ColumnTypeError, match=r"row 3 gave \[1\.5\]"):
        map_frame(Pipeline(nodes=[make]), texts(), types={"y": kind}).to_pydict()


def test_types_come_from_nested_pipelines_tuples_and_batches() -> None:
    @node(output_name=("first", "second"))
    def split(number: int) -> tuple[int, str]:
        return number, str(number)

    @node(output_name="third", batch_size=2)
    def third(first: list[int]) -> list[float]:
        return [one / 2 for one in first]

    inner = Pipeline(nodes=[split], name="inner").as_node(output_mapping={"first": "first", "second": "named"})
    frame = map_frame(Pipeline(nodes=[inner, third]), texts())
    assert [str(field.dtype) for field in frame.schema()] == ["Int64", "String", "Float64"]
    compare({"first": [0, 1], "named": ["0", "1"], "third": [0.0, 0.5]}, frame.limit(2).to_pydict())


def test_types_that_make_no_sense_are_refused() -> None:
    with pytest.raises(TypeError, match=r"types=\{'length': <class 'list'>\}; give str"):
        map_frame(STATS, texts(), types={"length": list})
    with pytest.raises(ValueError, match="types names 'size', which pipeline 'stats' does not make"):
        map_frame(STATS, texts(), types={"size": int})


# failures -------------------------------------------------------------------------------------------------------------


@node(output_name="quotient")
def divide(number: int) -> float:
    return 6 / (number - 1)


def test_failing_row_raises_the_users_own_exception_with_its_row() -> None:
    pipeline = Pipeline(nodes=[divide], name="main")
    for batch_size in (1, 100):
        with pytest.raises(ZeroDivisionError) as caught:
            map_frame(pipeline, texts(), batch_size=batch_size).to_pydict()
        assert any("main (item 1) > divide" in note for note in caught.value.__notes__)


def test_failing_rows_stay_alone_and_tell_why() -> None:
    later = node(lambda quotient: quotient + 1, output_name="later")
    frame = map_frame(Pipeline(nodes=[divide, later], name="main"), texts(), keep=["number"], on_error="return")
    found = frame.to_pydict()
    failure = found.pop("failure")
    compare({"number": [0, 1, 2, 3], "quotient": [-6.0, None, 6.0, 3.0], "later": [-5.0, None, 7.0, 4.0]}, found)
    assert [failure[at] for at in (0, 2, 3)] == [None] * 3
    assert failure[1].startswith("ZeroDivisionError: ")
    assert failure[1].endswith("(in main (item 1) > divide)")


def test_failures_that_are_values_are_values() -> None:
    failure = Failure(("a",), (None,), "E", "m", ValueError("v"))
    give = node(lambda number: failure if number == 1 else number, output_name="y")
    assert map_frame(Pipeline(nodes=[give]), texts()).to_pydict() == {"y": [0, failure, 2, 3]}


# names ----------------------------------------------------------------------------------------------------------------


def test_names_that_mean_two_things_or_nothing_are_refused() -> None:
    twice = texts().with_column("length", daft.col("number"))
    with pytest.raises(
        ValueError, match=r"has a column 'length', and pipeline 'stats' makes .* frame.exclude\('length'\)"
    ):
        map_frame(STATS, twice)
    with pytest.raises(ValueError, match="keep names 'ids', which is no column of the source: number, text"):
        map_frame(STATS, texts(), keep=["ids"])
    with pytest.raises(ValueError, match="keep names 'number' twice"):
        map_frame(STATS, texts(), keep=["number", "number"])
    with pytest.raises(TypeError, match=r"keep=\['number'\]"):
        map_frame(STATS, texts(), keep="number")
    with pytest.raises(ValueError, match="begins with 'hypernodes_'"):
        map_frame(STATS, texts().with_column("hypernodes_row", daft.col("number")))
    failing = Pipeline(nodes=[node(lambda number: number, output_name="failure")])
    with pytest.raises(ValueError, match="a column 'failure' of its own"):
        map_frame(failing, texts(), on_error="return")


def test_mistakes_are_told_before_anything_runs() -> None:
    with pytest.raises(UnknownOutputError, match=r"'lenght'.*did you mean 'length'"):
        map_frame(STATS, texts(), output_nodes=["lenght"])
    with pytest.raises(TypeError, match=r"output_nodes=\['length'\]"):
        map_frame(STATS, texts(), output_nodes="length")
    with pytest.raises(MissingInputError, match="'text'"):
        map_frame(STATS, texts().exclude("text"))
    with pytest.raises(UnknownInputError, match="'txt'"):
        map_frame(STATS, texts(), inputs={"txt": 1})
    with pytest.raises(ValueError, match="on_error='skip'"):
        map_frame(STATS, texts(), on_error="skip")
    with pytest.raises(ValueError, match="batch_size=0"):
        map_frame(STATS, texts(), batch_size=0)
    with pytest.raises(TypeError, match="takes a Pipeline first"):
        map_frame(texts(), STATS)


# native forms ---------------------------------------------------------------------------------------------------------


def native_stats(form: Any = lambda text: text.strip().lower()) -> Pipeline:
    cleaned = native(form)(node(clean.func, output_name="cleaned", name="clean"))
    length = native(lambda cleaned: cleaned.length())(node(measure.func, output_name="length", name="measure"))
    return Pipeline(nodes=[cleaned, length, tag], name="stats")


def test_native_forms_give_the_same_columns() -> None:
    pipeline = native_stats()
    native_frame, plain = map_frame(pipeline, texts()), map_frame(pipeline, texts(), native=False)
    assert native_frame.schema() == plain.schema() == map_frame(STATS, texts()).schema()
    compare(plain.to_pydict(), native_frame.to_pydict())
    compare(STATS.map([{"text": text} for text in TEXTS]), pipeline.map([{"text": text} for text in TEXTS]))


def test_native_forms_leave_python_out() -> None:
    ran: list[Any] = []
    noted = native(lambda text: text.upper())(node(lambda text: ran.append(text), output_name="loud"))
    assert map_frame(Pipeline(nodes=[noted]), texts()).to_pydict() == {"loud": [text.upper() for text in TEXTS]}
    assert not ran


def test_native_forms_and_functions_take_turns() -> None:
    @native(lambda text: text.strip())
    @node(output_name="stripped")
    def strip(text: str) -> str:
        return text.strip()

    @node(output_name="turned")
    def turn(stripped: str) -> str:
        return stripped[::-1]

    @native(lambda turned, by: turned.upper() + by)
    @node(output_name="loud")
    def shout(turned: str, by: str) -> str:
        return turned.upper() + by

    @node(output_name="last")
    def last(loud: str, stripped: str, number: int) -> str:
        return f"{loud} {stripped} {number}"

    pipeline = Pipeline(nodes=[last, shout, turn, strip])
    wanted = pipeline.map(inputs={"text": TEXTS, "number": [0, 1, 2, 3], "by": "!"}, map_over=["text", "number"])
    compare(wanted, map_frame(pipeline, texts(), inputs={"by": "!"}, check_native=4).to_pydict())


def test_native_form_with_several_outputs() -> None:
    @native(lambda number: (number + 1, number.cast(daft.DataType.string())))
    @node(output_name=("more", "named"))
    def split(number: int) -> tuple[int, str]:
        return number + 1, str(number)

    compare(
        {"more": [1, 2, 3, 4], "named": ["0", "1", "2", "3"]}, map_frame(Pipeline(nodes=[split]), texts()).to_pydict()
    )


def test_native_form_that_differs_is_found_on_sampled_rows() -> None:
    @native(lambda number: (number - 2) // 3)
    @node(output_name="part")
    def third(number: int) -> int:
        return (number - 2) // 3

    pipeline = Pipeline(nodes=[third])
    assert map_frame(pipeline, texts()).to_pydict()["part"] == [0, 0, 0, 0]
    told = r"'third': for 'part' in row 0 its function gives -1 \(int\), and its native form gives 0 \(int\)"
    with pytest.raises(NativeMismatchError, match=told):
        map_frame(pipeline, texts(), check_native=100).to_pydict()


def test_function_that_fails_where_its_native_form_does_not_is_found() -> None:
    quotient = native(lambda number: 6 / (number - 1))(node(divide.func, output_name="quotient"))
    with pytest.raises(NativeMismatchError, match="row 1 its function gives ZeroDivisionError"):
        map_frame(Pipeline(nodes=[quotient]), texts(), check_native=4).to_pydict()


def test_native_form_that_gives_no_expression_is_refused() -> None:
    with pytest.raises(TypeError, match="the native form of node 'clean' gives 'text' for 'cleaned', which is no Daft"):
        map_frame(native_stats(lambda text: "text"), texts())
    with pytest.raises(TypeError, match="the native form of node 'clean' gives 1 of 2 expressions") as caught:
        two = native(lambda text: text)(node(lambda text: (text, text), output_name=("a", "b"), name="clean"))
        map_frame(Pipeline(nodes=[two]), texts())
    assert "a, b" in str(caught.value)
    with pytest.raises(TypeError, match="says str; cast the expression"):
        map_frame(native_stats(lambda text: text.length()), texts())
    with pytest.raises(ValueError) as broken:
        map_frame(native_stats(lambda text: "a" if text > "x" else "b"), texts())
    assert any(
        "the native form of node 'clean', which takes Daft expressions" in note for note in broken.value.__notes__
    )


def test_native_form_of_no_node_is_refused() -> None:
    with pytest.raises(TypeError, match="@native stands above @node"):
        native(lambda text: text)(len)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="give a function of expressions"):
        native(clean)
    with pytest.raises(TypeError, match="node 'batch' takes batches"):
        native(lambda x: x)(node(lambda x: x, output_name="batch", batch_size=2))


@pytest.mark.parametrize("options", [{"timeout": 1.0}, {"limit": "calls"}, {"resources": {"gpus": 1}}], ids=str)
def test_native_form_of_a_node_whose_options_it_would_not_heed_is_refused(options: Any) -> None:
    with pytest.raises(TypeError, match=f"node 'y' has {next(iter(options))}=.*would not heed"):
        native(lambda x: x)(node(lambda x: x, output_name="y", **options))


def test_native_form_needs_typed_columns_and_literals() -> None:
    untyped = node(lambda text: text, output_name="cleaned")
    length = native(lambda cleaned: cleaned.length())(node(measure.func, output_name="length"))
    with pytest.raises(TypeError, match="takes 'cleaned', which is a column of Python objects"):
        map_frame(Pipeline(nodes=[untyped, length]), texts())
    typed = map_frame(Pipeline(nodes=[untyped, length]), texts(), types={"cleaned": str}, output_nodes=["length"])
    assert typed.to_pydict() == {"length": [len(text) for text in TEXTS]}
    with pytest.raises(TypeError, match="the input 'cleaned', a tuple, which is no literal"):
        map_frame(Pipeline(nodes=[length]), texts().exclude("text"), inputs={"cleaned": ()})


def test_forms_that_only_their_own_node_has() -> None:
    form = native(lambda text: text.upper())(node(clean.func, output_name="cleaned"))
    other = node(clean.func, output_name="cleaned")
    assert map_frame(Pipeline(nodes=[form]), texts()).to_pydict()["cleaned"][0] == " A "
    assert map_frame(Pipeline(nodes=[other]), texts()).to_pydict()["cleaned"][0] == "a"
