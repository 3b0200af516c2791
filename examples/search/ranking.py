"""From the terms of all documents to an index, and from queries to the documents that answer them."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

from bm25s import BM25
from numpy.typing import NDArray
from text import Lexicon

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


@node(output_name="hits", batch_size=64, batch_over="query")
def rank(index: Index, query: list[str], lexicon: Lexicon, top: int = 5) -> list[list[Hit]]:
    """For each query the best documents, best first; none where no document has any of its terms.

    Queries that come together share the scores of the terms that they share.
    """
    terms = [[term for term in lexicon.query_terms(one) if term in index.weights.vocab_dict] for one in query]
    scores = {term: index.weights.get_scores([term]) for term in dict.fromkeys(chain.from_iterable(terms))}
    return [_best(index, [scores[term] for term in known], top) for known in terms]


def _best(index: Index, by_term: list[NDArray[Any]], top: int) -> list[Hit]:
    """The best by the sum over the terms, times the share of them that occur: two words once beat one word twice."""
    if not by_term:
        return []
    scores = (sum(by_term) * sum(one > 0 for one in by_term) / len(by_term)).tolist()
    best = sorted(range(len(scores)), key=lambda at: (-scores[at], index.names[at]))
    return [Hit(index.names[at], index.summaries[at], scores[at]) for at in best[:top] if scores[at] > 0]
