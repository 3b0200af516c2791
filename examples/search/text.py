"""From one docstring to its terms. Every node here knows of one document and of nothing else."""

from __future__ import annotations

import re
from itertools import pairwise

from hypernodes import node, resource

NAME_WEIGHT = 3
"""How often a document's own name counts, when a word of its text counts once."""

_COMMON = """
    a about an and are as at be but by can did do does for from get give how i if in into is it its me my not of on or
    so that the their then there these they this to use using was we what when where which who why will with would you
    your
"""
STOP_WORDS = frozenset(_COMMON.split())
"""Words that tell nothing of a document, those that make a question among them."""

SPELLED_OUT = {
    "argparse": "argument parse",
    "chdir": "change directory",
    "datetime": "date time",
    "dict": "dictionary",
    "dir": "directory",
    "env": "environment",
    "getcwd": "get current directory",
    "mkdir": "make directory",
    "rmdir": "remove directory",
    "rmtree": "remove tree",
    "strftime": "format time",
    "strptime": "parse time",
    "temp": "temporary",
    "tmp": "temporary",
}
"""What the short names of the library stand for, in the words of those who do not know them yet."""

_ROLE = re.compile(r":[a-z]+(?::[a-z]+)?:(?=`)")
_SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$")
_END = re.compile(r"(?<=[^.\s][.!?])\s+(?=[A-Z`\"'(])")
_WORD = re.compile(r"[A-Za-z]\w*|\d+")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@node(output_name="cleaned")
def clean(doc: str) -> str:
    """A docstring without its doctests and its markup."""
    lines = (line for line in doc.splitlines() if not line.lstrip().startswith((">>>", "... ")))
    return _ROLE.sub("", "\n".join(lines)).replace("``", "`").replace("`", "")


@node(output_name="summary")
def summarize(cleaned: str) -> str:
    """The first sentence of a docstring, on one line; where it has none, a bare signature perhaps, its first line."""
    for paragraph in re.split(r"\n\s*\n", cleaned):
        lines = [line.strip() for line in paragraph.splitlines()]
        prose = " ".join(line for line in lines if line and not _SIGNATURE.match(line))
        if any(letter.isalpha() for letter in prose):
            return _END.split(prose, maxsplit=1)[0]
    return next((line.strip() for line in cleaned.splitlines() if line.strip()), "")


class Lexicon:
    """Cuts words to the stems under which documents and queries meet, and remembers those it has met."""

    def __init__(self) -> None:
        self._stems: dict[str, tuple[str, ...]] = {}

    def terms_of(self, text: str) -> list[str]:
        """The stems of all words that say something, in the order of the text."""
        return [stem for word in _WORD.findall(text) for stem in self._stems_of(word)]

    def query_terms(self, query: str) -> list[str]:
        """The terms of a query, each once, and neighbours joined: "parse dates" also looks for `parsedate`."""
        words = [word.lower() for word in _WORD.findall(query) if word.lower() not in STOP_WORDS]
        joined = [left + right for left, right in pairwise(words)]
        return list(dict.fromkeys(stem(word) for word in [*words, *joined]))

    def _stems_of(self, word: str) -> tuple[str, ...]:
        found = self._stems.get(word)
        if found is None:
            found = self._stems[word] = tuple([stem(piece) for piece in _pieces(word) if piece not in STOP_WORDS])
        return found


@resource
def lexicon() -> Lexicon:
    """One for each worker: what it has met once, it need not cut again."""
    return Lexicon()


@node(output_name="terms")
def tokenize(name: str, cleaned: str, lexicon: Lexicon) -> list[str]:
    """The terms of one document; those of its own name count more, those of its class and module as the text's do."""
    path, _, own = name.rpartition(".")
    return lexicon.terms_of(own) * NAME_WEIGHT + lexicon.terms_of(path) + lexicon.terms_of(cleaned)


def _pieces(word: str) -> tuple[str, ...]:
    """A word, and where it is made of several the parts of it: of `OrderedDict` "ordered", "dict" and "dictionary"."""
    parts = [part.lower() for part in _PIECE.findall(word)]
    spelled = [piece for part in parts for piece in SPELLED_OUT.get(part, "").split()]
    return tuple(dict.fromkeys([word.lower(), *parts, *spelled]))


def stem(word: str) -> str:
    """A word without the commonest English endings: "parses", "parsed", "parsing" and "parse" are all "pars"."""
    if word in STOP_WORDS or word.endswith("ss"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    for ending in ("ing", "ed", "es", "s", "e"):
        kept = word.removesuffix(ending)
        if kept != word and len(kept) > 2 and set(kept) & set("aeiouy"):
            doubled = len(kept) > 3 and kept[-1] == kept[-2] and kept[-1] not in "ls"
            return kept[:-1] if doubled else kept
    return word
