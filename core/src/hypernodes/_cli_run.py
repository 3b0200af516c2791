"""Running and explaining a pipeline from the command line: what it names is imported, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

from hypernodes._cli_text import Abort, emit, json_of, one_line, safe
from hypernodes._cli_values import inputs_of, rows_of
from hypernodes._errors import did_you_mean

if TYPE_CHECKING:
    from hypernodes._pipeline import Pipeline

__all__ = ["explain", "run", "why"]

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_ASK_FOR_APP_DIR = "pass --app-dir . to look in the current directory"
_LIMITS = ("max_workers", "max_concurrent")
"""What backends call the number that --workers gives."""


def explain(chosen: Namespace, out: TextIO) -> int:
    """Print where and how every node of the pipeline would run."""
    pipeline = _pipeline(chosen)
    options: dict[str, Any] = {}
    if chosen.inputs is not None:
        options["inputs"] = [name.strip() for name in chosen.inputs.split(",") if name.strip()]
    if chosen.output:
        options["output_nodes"] = chosen.output
    emit(out, safe(str(pipeline.explain(**options))))
    return 0


def why(chosen: Namespace, out: TextIO) -> int:
    """Print for every node of a call whether its result is kept, and if not, what is new in its key."""
    pipeline = _cached(_pipeline(chosen), chosen.cache)
    emit(out, safe(str(pipeline.why_miss(inputs_of(pipeline, chosen.input), output_nodes=chosen.output))))
    return 0


def _cached(pipeline: Pipeline, address: str | None) -> Pipeline:
    return pipeline if address is None else pipeline.with_options(cache=address)


def run(chosen: Namespace, out: TextIO) -> int:
    """Run the pipeline once, or once for each row of a file; one JSON object a line. 1 when an item failed."""
    if chosen.workers is not None and chosen.backend is None:
        raise Abort("--workers needs --backend, for example --backend local:threaded --workers 4")
    if chosen.on_error == "return" and chosen.map is None:
        raise Abort("--on-error return needs --map: with a single run there is no other item to go on with")
    pipeline = _pipeline(chosen)
    if chosen.backend is not None:
        pipeline = pipeline.with_backend(_backend(chosen.backend, chosen.workers))
    pipeline = _cached(pipeline, chosen.cache)
    shared = inputs_of(pipeline, chosen.input)
    if chosen.map is None:
        values = pipeline.run(shared, output_nodes=chosen.output, progress=chosen.progress)
        with _written(chosen.out, out) as lines:
            emit(lines, json_of(values, ""))
        return 0
    return _map(pipeline, shared, chosen, out)


def _map(pipeline: Pipeline, shared: dict[str, Any], chosen: Namespace, out: TextIO) -> int:
    from hypernodes import Failure

    count = failed = 0
    with closing(rows_of(pipeline, chosen.map)) as rows, _written(chosen.out, out) as lines:
        options = {"output_nodes": chosen.output, "on_error": chosen.on_error, "progress": chosen.progress}
        stream = pipeline.map_iter(rows, inputs=shared, **options)
        with closing(stream) as results:
            for result in results:
                if isinstance(result, Failure):
                    failed += 1
                    result = {"error": result.to_dict()}
                emit(lines, json_of(result, f" of item {count}"))
                count += 1
    if failed:
        sys.stderr.write(f"hypernodes: {failed} of {count} items failed\n")
    return 1 if failed else 0


@contextmanager
def _written(path: str | None, out: TextIO) -> Iterator[TextIO]:
    if path is None:
        yield out
        return
    try:
        lines = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115
    except OSError as error:
        raise Abort(f"'{path}' cannot be written: {one_line(error)}") from error
    with lines:
        yield lines


def _backend(text: str, workers: int | None) -> Any:
    """The backend that `NAME[:ENGINE]` means, built with the options that were given."""
    from hypernodes import _registry as registry

    name, colon, engine = text.partition(":")
    if not name or (colon and not engine):
        raise Abort(f"--backend '{text}' is not NAME or NAME:ENGINE, for example local:threaded")
    made = registry.load(registry.backend_spec(name))
    options: dict[str, Any] = {"engine": engine} if engine else {}
    if workers is not None:
        limit = next((limit for limit in _LIMITS if limit in inspect.signature(made).parameters), None)
        if limit is None:
            raise Abort(f"--workers does not go with backend '{name}': it takes none of {', '.join(_LIMITS)}")
        options[limit] = workers
    try:
        return made(**options)
    except (TypeError, ValueError) as error:
        raise Abort(f"backend '{text}' cannot be built from the command line: {one_line(error)}") from error


def _pipeline(chosen: Namespace) -> Pipeline:
    """The pipeline that the target names, imported."""
    from hypernodes import Pipeline

    place, colon, attribute = chosen.target.rpartition(":")
    if not colon or not attribute.isidentifier():
        raise Abort(f"'{safe(chosen.target)}' is not MODULE:PIPELINE, for example shop.jobs:encode")
    if chosen.app_dir is not None:
        if not os.path.isdir(chosen.app_dir):
            raise Abort(f"--app-dir '{chosen.app_dir}' is not a directory")
        sys.path.insert(0, os.path.abspath(chosen.app_dir))
    module = _file(place) if chosen.file else _module(place, chosen.app_dir)
    known = [name for name, value in vars(module).items() if isinstance(value, Pipeline)]
    found = vars(module).get(attribute)
    if isinstance(found, Pipeline):
        return found
    pipelines = ", ".join(f"'{name}'" for name in known) or "none"
    what = f"has no '{attribute}'" if attribute not in vars(module) else f"has '{attribute}', but it is no Pipeline"
    raise Abort(f"'{place}' {what}{did_you_mean(attribute, known)}; its pipelines: {pipelines}")


def _module(name: str, app_dir: str | None) -> ModuleType:
    if "/" in name or name.endswith(".py"):
        raise Abort(f"'{safe(name)}' is a path, not the name of a module; to import a file, pass --file")
    if not _MODULE.fullmatch(name):
        raise Abort(f"'{safe(name)}' is not the name of a module")
    with _importing(name, missing=f"also not in --app-dir '{app_dir}'" if app_dir else _ASK_FOR_APP_DIR):
        return importlib.import_module(name)


def _file(path: str) -> ModuleType:
    """The module in a file. Its functions travel to other processes by value, since none could import them."""
    from importlib.util import module_from_spec, spec_from_file_location

    import cloudpickle

    stem = Path(path).stem
    if not path.endswith(".py") or not stem.isidentifier():
        raise Abort(f"--file takes PATH.py:PIPELINE with a file named as modules are, and '{safe(path)}' is not one")
    if not os.path.isfile(path):
        raise Abort(f"there is no file '{path}'")
    if stem in sys.modules:
        raise Abort(f"'{path}' bears the name of a module that is already loaded, '{stem}'; rename it")
    spec = spec_from_file_location(stem, path)
    if spec is None or spec.loader is None:
        raise Abort(f"'{path}' cannot be imported")
    module = module_from_spec(spec)
    sys.modules[stem] = module
    with _importing(path):
        spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module


@contextmanager
def _importing(name: str, missing: str = "") -> Iterator[None]:
    """Turn whatever an import raises, `sys.exit()` too, into one sentence; `missing` ends it if there is no `name`."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if missing and isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise Abort(f"No module named '{error.name}': {missing}") from error
        said = f"{type(error).__qualname__}: {one_line(error)}"
        raise Abort(f"'{name}' could not be imported: {said}", code=1) from error
