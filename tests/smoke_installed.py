"""Run a small pipeline on every engine that is installed and that this machine can host.

A script rather than a test: it runs in environments that hold the built wheels and no test tools.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import hypernodes
from hypernodes import LocalBackend, Pipeline, node

BUILT_IN = ("sequential", "async")
PROVIDED = {"threads", "processes"}


@node(output_name="cleaned")
def clean(text: str) -> str:
    return text.strip().lower()


@node(output_name="length")
def measure(cleaned: str) -> int:
    return len(cleaned)


def engines() -> list[str]:
    """The names that the installed plugins declare, without those that need a cluster."""
    manifests = [entry.load() for entry in entry_points(group="hypernodes")]
    specs = [spec for manifest in manifests if "engines" in vars(manifest) for spec in manifest.engines()]
    return [*BUILT_IN, *sorted(spec.name for spec in specs if spec.requires <= PROVIDED)]


def main() -> None:
    texts = [" One", "TWO ", "three"]
    expected = [{"cleaned": "one", "length": 3}, {"cleaned": "two", "length": 3}, {"cleaned": "three", "length": 5}]
    assert Path(hypernodes.__file__).is_relative_to(sys.prefix), hypernodes.__file__
    assert version("hypernodes") == version("hypernodes-core"), (version("hypernodes"), version("hypernodes-core"))
    assert any(line.startswith("hypernodes-core") for line in requires("hypernodes") or []), requires("hypernodes")
    names = engines()
    assert {"threaded", "multiprocess"} <= set(names), names
    for name in names:
        pipeline = Pipeline(nodes=[clean, measure], name="smoke", backend=LocalBackend(engine=name))
        assert pipeline.run(text=" One") == expected[0], name
        assert pipeline.map([{"text": text} for text in texts]) == expected, name
    print(f"hypernodes {version('hypernodes')} from {Path(hypernodes.__file__).parent}: {', '.join(names)}")


if __name__ == "__main__":
    main()
