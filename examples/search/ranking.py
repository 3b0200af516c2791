"""From the terms of all documents to an index, and from a query to the documents that answer it."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from bm25s import BM25
from text import query_terms

from hypernodes import node


class Index(NamedTuple):
    """What a search needs: for each document its name and summary, and the weight of each term in each."""

    names: list[str]
    summaries: list[str]
    weights: BM25


class Hit(NamedTuple):
    name: str
    summary: str
    score: float


@node(output_name="index")
def make_index(names: list[list[str]], summaries: list[list[str]], terms: list[list[list[str]]]) -> Index:
    """Weigh the terms of all modules' documents with BM25. The same documents give the same index, bit for bit."""
    documents = list(chain.from_iterable(terms))
    vocabulary = {term: at for at, term in enumerate(sorted(set(chain.from_iterable(documents))))}
    weights = BM25()
    weights.index(([[vocabulary[term] for term in one] for one in documents], vocabulary), show_progress=False)
    return Index(list(chain.from_iterable(names)), list(chain.from_iterable(summaries)), weights)


@node(output_name="hits")
def rank(index: Index, query: str, top: int = 5) -> list[Hit]:
    """The best documents for a query, best first; none where no document has any of its terms.

    A score is the sum over the terms, times the share of the terms that occur: two words once beat one word twice.
    """
    known = [term for term in query_terms(query) if term in index.weights.vocab_dict]
    if not known:
        return []
    by_term = [index.weights.get_scores([term]) for term in known]
    scores = (sum(by_term) * sum(one > 0 for one in by_term) / len(known)).tolist()
    best = sorted(range(len(scores)), key=lambda at: (-scores[at], index.names[at]))
    return [Hit(index.names[at], index.summaries[at], scores[at]) for at in best[:top] if scores[at] > 0]
