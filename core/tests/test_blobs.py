"""Blobs that a worker process keeps."""

from __future__ import annotations

import pytest

from hypernodes import _blobs
from hypernodes.plugin import FetchedBlobs, keep_blob, kept_blob


def test_blob_is_fetched_once_and_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blobs, "KEPT_BYTES", 20)
    monkeypatch.setattr(_blobs, "_kept", type(_blobs._kept)())
    fetched: list[str] = []

    def fetch(ref: str) -> bytes:
        fetched.append(ref)
        return ref.encode() * 10

    blobs = FetchedBlobs({"1": "a", "2": "b", "3": "c"}, fetch)
    assert (blobs["1"], blobs["2"], blobs["1"]) == (b"a" * 10, b"b" * 10, b"a" * 10)
    assert fetched == ["a", "b"]
    assert blobs["3"] == b"c" * 10
    assert kept_blob("2") is None
    assert blobs["1"] == b"a" * 10
    assert fetched == ["a", "b", "c"]
    assert keep_blob("4", bytes(99)) == bytes(99)  # too large: kept for as long as it is the latest
    assert kept_blob("1") is None
