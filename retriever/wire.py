"""Records as JSON values and back: the form in which a server and its clients exchange them.

Hits have the form that `retriever search --json` prints. Numbers lose nothing: what is read equals what was written.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from retriever.types import ChunkHit, Document, Encoded, Hit, LegPart, ScoredDoc, Span, StagePart, TermMatch, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy.sparse import csr_matrix

    from retriever.types import BoolArray, Ranking, Snippet

__all__ = [
    "PROBLEM",
    "PROBLEM_TYPE",
    "VERSION",
    "VERSION_HEADER",
    "document_from_wire",
    "document_to_wire",
    "encoded_from_wire",
    "encoded_to_wire",
    "error_from_wire",
    "hit_from_wire",
    "hit_to_wire",
    "problem",
    "ranking_from_wire",
    "ranking_to_wire",
]

VERSION = "1"
"""Of this form: to be raised where a client of the version before could not read it."""
VERSION_HEADER = "retriever-wire"
"""The header of every answer that says which form it has."""
PROBLEM = "application/problem+json"
"""The media type of errors (RFC 9457)."""
PROBLEM_TYPE = "urn:retriever:problem:"
"""What the type of a problem begins with; behind it stands its name, such as "user-error"."""


def hit_to_wire(hit: Hit, snippet: Snippet | None = None) -> dict[str, Any]:
    """Return a hit as JSON values; with its snippet, which can be made of it again, where one is given."""
    values = hit._asdict()
    values["metadata"] = dict(hit.metadata)
    values["parts"] = {leg: part._asdict() for leg, part in hit.parts.items()}
    values["terms"] = [match._asdict() for match in hit.terms]
    values["chunks"] = [chunk._asdict() | {"scores": dict(chunk.scores)} for chunk in hit.chunks]
    for name in ("highlights", "title_highlights"):
        values[name] = [span._asdict() for span in values[name]]
    if snippet is not None:
        spans = [span._asdict() for span in snippet.highlights]
        values["snippet"] = snippet._asdict() | {"highlights": spans}
    values["stages"] = [
        stage._asdict() | {"matches": [match._asdict() for match in stage.matches]} for stage in hit.stages
    ]
    return values


def hit_from_wire(values: Mapping[str, Any]) -> Hit:
    """Return the hit that `hit_to_wire` wrote."""
    known = {name: values[name] for name in Hit._fields if name in values}
    known["parts"] = {leg: LegPart(**part) for leg, part in values["parts"].items()}
    known["terms"] = tuple(TermMatch(**match) for match in values["terms"])
    known["chunks"] = tuple(ChunkHit(**chunk) for chunk in values["chunks"])
    for name in ("highlights", "title_highlights"):
        known[name] = tuple(Span(**span) for span in values.get(name, ()))
    known["stages"] = tuple(
        StagePart(**stage | {"matches": tuple(TermMatch(**match) for match in stage["matches"])})
        for stage in values.get("stages", ())
    )
    return Hit(**known)


def document_to_wire(document: Document) -> dict[str, Any]:
    """Return a document as JSON values; a corpus may hold them, too."""
    return {
        "id": document.doc_id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
        **({"expansion": document.expansion} if document.expansion else {}),
    }


def document_from_wire(values: Mapping[str, Any]) -> Document:
    """Return the document that `document_to_wire` wrote."""
    expansion = values.get("expansion", "")
    return Document(values["id"], values["text"], values["title"], values["metadata"], expansion)


def ranking_to_wire(ranking: Ranking) -> list[dict[str, Any]]:
    """Return a ranking as JSON values."""
    return [{"doc_id": doc_id, "score": score} for doc_id, score in ranking]


def ranking_from_wire(values: Sequence[Mapping[str, Any]]) -> Ranking:
    """Return the ranking that `ranking_to_wire` wrote."""
    return [ScoredDoc(hit["doc_id"], hit["score"]) for hit in values]


def encoded_to_wire(encoded: Encoded, vocabulary: Sequence[str] = ()) -> dict[str, Any]:
    """Return the views of n texts as JSON values.

    vocabulary: adds to each row of the sparse view its terms, for people to read.
    """
    dense = encoded.dense
    return {
        "dense": None if dense is None else {"width": dense.shape[1], "rows": dense.tolist()},
        "sparse": _matrix_to_wire(encoded.sparse, vocabulary),
        "truncated": encoded.truncated.tolist(),
        "tokens": _matrix_to_wire(encoded.tokens),
        "unread": None if encoded.unread is None else encoded.unread.tolist(),
    }


def encoded_from_wire(values: Mapping[str, Any]) -> Encoded:
    """Return the views that `encoded_to_wire` wrote."""
    import numpy as np

    def flags(found: Sequence[bool]) -> BoolArray:
        return np.array(found, np.bool_)

    dense = values["dense"]
    return Encoded(
        None if dense is None else np.array(dense["rows"], np.float32).reshape(-1, dense["width"]),
        _matrix_from_wire(values["sparse"]),
        flags(values["truncated"]),
        _matrix_from_wire(values["tokens"]),
        None if values["unread"] is None else flags(values["unread"]),
    )


def _matrix_to_wire(matrix: csr_matrix | None, vocabulary: Sequence[str] = ()) -> dict[str, Any] | None:
    """Return a csr matrix as its width and, for each row, the columns and values that are not zero."""
    if matrix is None:
        return None
    ends = matrix.indptr.tolist()
    columns, weights = matrix.indices.tolist(), matrix.data.tolist()
    rows = [
        {"indices": columns[start:end], "values": weights[start:end]}
        | ({"terms": [vocabulary[column] for column in columns[start:end]]} if vocabulary else {})
        for start, end in pairwise(ends)
    ]
    return {"width": matrix.shape[1], "rows": rows}


def _matrix_from_wire(values: Mapping[str, Any] | None) -> csr_matrix | None:
    if values is None:
        return None
    import numpy as np
    from scipy.sparse import csr_matrix

    rows = values["rows"]
    ends = np.cumsum([0, *(len(row["indices"]) for row in rows)])
    columns = np.array([column for row in rows for column in row["indices"]], np.int32)
    weights = np.array([weight for row in rows for weight in row["values"]], np.float32)
    return csr_matrix((weights, columns, ends), shape=(len(rows), values["width"]))


def problem(status: int, title: str, kind: str, detail: str) -> dict[str, Any]:
    """Return an error as problem details (RFC 9457): `detail` has the words of the command line."""
    return {"type": f"{PROBLEM_TYPE}{kind}", "title": title, "status": status, "detail": detail}


def error_from_wire(values: Mapping[str, Any]) -> UserError:
    """Return the error whose message is the problem's detail, or its title where it has none."""
    return UserError(str(values.get("detail") or values.get("title") or "the server gave no reason"))
