"""Looking after a cache from the command line: what is in it, dropping entries, finding damaged ones.

Nothing here unpickles: a cache that is not trusted can be looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from hypernodes._bytes_cache import BytesCache, Kept
from hypernodes._cache import Note
from hypernodes._cache_address import open_cache
from hypernodes._cli_text import Abort, emit, safe, table
from hypernodes._disk import DiskCache
from hypernodes._entry import Defect
from hypernodes._errors import a_kind, without_secrets
from hypernodes._signing import VARIABLE

__all__ = ["clear", "stats", "verify"]

SPARED = {
    "signed": f"signed, and the environment variable '{VARIABLE}' holds no key to check them with",
    "version": "of another version of hypernodes, which may want them",
}
"""Kinds of defect for which `verify --delete` drops nothing, and why."""


def stats(chosen: argparse.Namespace, out: TextIO) -> int:
    """How many entries, how large, of which nodes. Reads the head of every entry."""
    cache = _opened(chosen.address)
    nodes: dict[str, list[int]] = {}
    unread: dict[str, int] = {}
    entries = list(cache.kept())
    for entry in entries:
        try:
            note = cache.peek(entry.key)
        except Defect as defect:
            unread[defect.reason] = unread.get(defect.reason, 0) + 1
            continue
        if note is not None:
            sums = nodes.setdefault(note.node or "?", [0, 0])
            sums[0] += 1
            sums[1] += entry.size
    used = [entry.used for entry in entries]
    facts: dict[str, Any] = {
        "cache": _name(chosen.address),
        "entries": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "used": {"first": min(used), "last": max(used)} if used else None,
        "nodes": {
            node: {"entries": number, "bytes": size}
            for node, (number, size) in sorted(nodes.items(), key=lambda pair: -pair[1][1])
        },
        "not_read": unread,
    }
    if chosen.json:
        emit(out, json.dumps(facts, indent=2))
        return 0
    emit(out, f"{safe(facts['cache'])}: {_entries(facts['entries'])}, {_size(facts['bytes'])}")
    if used:
        emit(out, f"last used between {_moment(min(used))} and {_moment(max(used))}")
        rows = [[node, str(number), _size(size)] for node, (number, size) in nodes.items()]
        emit(out, "\n" + table([["node", "entries", "size"], *rows]))
    for reason, count in unread.items():
        emit(out, f"{_entries(count)} not read: {safe(reason)}")
    return 0


def clear(chosen: argparse.Namespace, out: TextIO) -> int:
    """Drop entries: all, or those of a node, or those that were not used for a time."""
    cache = _opened(chosen.address)
    entries = list(cache.kept())
    if chosen.older_than is not None:
        before = time.time() - chosen.older_than
        entries = [entry for entry in entries if entry.used < before]
    if chosen.node is not None:
        entries = [entry for entry in entries if _node_of(cache, entry) == chosen.node]
    size = sum(entry.size for entry in entries)
    if entries and not chosen.yes:
        _ask(f"drop {_entries(len(entries))} ({_size(size)}) of {_name(chosen.address)}?")
    for entry in entries:
        cache.delete(entry.key)
    cache.sweep()
    if chosen.json:
        emit(out, json.dumps({"cache": _name(chosen.address), "dropped": len(entries), "bytes": size}))
    else:
        emit(out, f"dropped {_entries(len(entries))}, {_size(size)}")
    return 0


def verify(chosen: argparse.Namespace, out: TextIO) -> int:
    """Read every entry and report the damaged ones; drop them where asked. 1 when any remains."""
    cache = _opened(chosen.address)
    good, bad = 0, []
    for entry in cache.kept():
        problem = _problem(cache, entry)
        if problem is None:
            good += 1
        else:
            bad.append((entry, problem))
    if chosen.delete and not good and any(problem.kind == "signature" for _, problem in bad):
        raise Abort(
            f"no entry of {_name(chosen.address)} is signed with the key in '{VARIABLE}'; it is probably another key, "
            "so nothing is dropped; `hypernodes cache clear` drops everything",
            code=1,
        )
    dropped = 0
    for entry, problem in bad:
        if chosen.delete and problem.kind not in SPARED:
            cache.delete(entry.key)
            dropped += 1
    remaining = len(bad) - dropped
    if chosen.json:
        defects = [{"key": entry.key, "kind": problem.kind, "reason": problem.reason} for entry, problem in bad]
        facts = {"cache": _name(chosen.address), "good": good, "dropped": dropped, "defects": defects}
        emit(out, json.dumps(facts, indent=2))
        return 1 if remaining else 0
    for entry, problem in bad:
        emit(out, f"{entry.key}: {safe(problem.reason)}")
    told = f"{_entries(good)} good, {len(bad)} not"
    emit(out, told + (f", {dropped} dropped" if chosen.delete else ""))
    for kind, reason in SPARED.items():
        count = sum(problem.kind == kind for _, problem in bad)
        if chosen.delete and count:
            emit(out, f"{_entries(count)} left alone: {reason}")
    return 1 if remaining else 0


def _opened(address: str) -> BytesCache:
    cache = open_cache(address)
    if not isinstance(cache, BytesCache):
        raise Abort(f"'{_name(address)}' is {a_kind(cache)}, which the command line cannot look into")
    if isinstance(cache, DiskCache) and not os.path.isdir(cache.path):
        raise Abort(f"there is no cache at '{cache.path}': no such folder")
    return cache


def _problem(cache: BytesCache, entry: Kept) -> Defect | None:
    try:
        cache.check(entry.key)
    except Defect as defect:
        return defect
    except OSError as error:
        return Defect("unreadable", f"it cannot be read ({type(error).__name__}: {error.strerror})")
    return None


def _node_of(cache: BytesCache, entry: Kept) -> str | None:
    try:
        note: Note | None = cache.peek(entry.key)
    except (Defect, OSError):
        return None
    return None if note is None else note.node


def _ask(question: str) -> None:
    """Go on when the answer is yes. Raises Abort otherwise, or when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise Abort(f"{question} Nobody is there to ask: say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Abort("nothing was dropped", code=1)


def _name(address: str) -> str:
    return without_secrets(address)


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _size(count: float) -> str:
    """Bytes in the unit that reads best."""
    units: Iterable[str] = ("bytes", "kB", "MB", "GB")
    for unit in units:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
