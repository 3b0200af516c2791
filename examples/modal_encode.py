"""Texts encoded on GPUs at Modal, in the middle of a pipeline that runs here.

    python modal_encode.py            at Modal, with a token: `modal token new`
    python modal_encode.py --local    on this machine: the same program against a control plane of its own

The inner pipeline names its place and what it needs there: an image with the user's configs in it, a GPU, memory, a
volume with the weights and a secret. Its functions know nothing of it. The model is made once for each container, by a
resource. Instead of downloaded weights, which the image would need a large library for, the volume holds a few numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal

from hypernodes import LocalBackend, ModalBackend, Pipeline, node, resource

HERE = Path(__file__).resolve().parent
MODELS = os.environ.get("ENCODE_MODELS", "/models")
CONFIGS = os.environ.get("ENCODE_CONFIGS", "/configs")


# what runs at Modal --------------------------------------------------------------------------------------------------


class Encoder:
    """A model of letters: a weight for each, and as many numbers for a text as its config says."""

    def __init__(self, weights: dict[str, float], dimensions: int) -> None:
        self.weights, self.dimensions = weights, dimensions

    def encode(self, text: str) -> list[float]:
        found = [0.0] * self.dimensions
        for at, letter in enumerate(text):
            found[at % self.dimensions] += self.weights.get(letter, 0.0)
        length = math.sqrt(sum(one * one for one in found)) or 1.0
        return [one / length for one in found]


def download(token: str) -> dict[str, float]:
    """Stands in for a model hub that wants a token."""
    if not token:
        raise PermissionError("the hub wants a token")
    return {letter: at / 26 for at, letter in enumerate("abcdefghijklmnopqrstuvwxyz", 1)}


@resource
def encoder() -> Encoder:
    """The model, from the volume; the first container ever puts it there."""
    weights = Path(MODELS, "letters.json")
    if not weights.exists():
        # Several containers may come here at once: each file is there whole or not at all.
        mine = weights.with_suffix(f".{os.getpid()}")
        mine.write_text(json.dumps(download(os.environ["HUB_TOKEN"])))
        mine.replace(weights)
    config = json.loads(Path(CONFIGS, "encode.json").read_text())
    return Encoder(json.loads(weights.read_text()), config["dimensions"])


@node(output_name="vector", resources={"gpus": 1})
def encode(cleaned: str, encoder: Encoder) -> list[float]:
    return encoder.encode(cleaned)


# what runs here ------------------------------------------------------------------------------------------------------


@node(output_name="cleaned")
def clean(text: str) -> str:
    return " ".join(text.lower().split())


@node(output_name="summary")
def summarize(text: str, vector: list[float]) -> str:
    return f"{text.strip()!r} -> {', '.join(f'{one:.2f}' for one in vector[:4])}, ... ({len(vector)} numbers)"


def pipeline_at(backend: Any) -> Pipeline:
    gpu = Pipeline(nodes=[encoder, encode], name="encode", backend=backend)
    return Pipeline(nodes=[clean, gpu, summarize], name="main", backend=LocalBackend())


def modal_backend() -> ModalBackend:
    """Where the inner pipeline lives."""
    image = modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
    image = image.add_local_dir(HERE / "modal_configs", CONFIGS)
    return ModalBackend(
        image=image,
        gpu="A100",
        memory="32GB",
        timeout=3600,
        volumes={MODELS: modal.Volume.from_name("encode-models", create_if_missing=True)},
        secrets=[modal.Secret.from_name("model-hub")],
        max_concurrent=100,
    )


@contextlib.contextmanager
def local_modal() -> Iterator[None]:
    """A control plane on this machine: no account, no cost, and real processes for containers."""
    from hypernodes_modal.testing import LocalModal

    global MODELS, CONFIGS
    with tempfile.TemporaryDirectory() as folder, LocalModal(secrets={"model-hub": {"HUB_TOKEN": "hub-1234"}}) as local:
        MODELS, CONFIGS = f"{folder}/models", f"{folder}/configs"
        with local.use():
            yield


TEXTS = ["  Write functions for one item ", "choose WHERE they run", "nest, move, and nothing else changes"]


def main() -> None:
    with contextlib.ExitStack() as stack:
        if "--local" in sys.argv[1:]:
            stack.enter_context(local_modal())
        backend = stack.enter_context(modal_backend())
        pipeline = pipeline_at(backend)
        print(pipeline.explain(output_name="summary"), end="\n\n")
        for summary in pipeline.map([{"text": text} for text in TEXTS], output_name="summary"):
            print(summary)
        print(pipeline.run(text=TEXTS[0], output_name="summary"))
        print(f"\n{backend.cost()}", file=sys.stderr)


if __name__ == "__main__":
    main()
