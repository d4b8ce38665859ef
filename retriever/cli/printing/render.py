"""What a person sees: hits, comparisons and tables as plain text. Functions of records, they print nothing."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

from retriever.cli.printing.columns import columns, isolated, wrapped
from retriever.search.showing.highlights import snippet
from retriever.tables import human_bytes
from retriever.wire import hit_to_wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.cli.checks import Finding
    from retriever.index.info import IndexInfo
    from retriever.search.fusion.fusion import FusionConfig
    from retriever.types import Hit, Snippet, Span, TermMatch

__all__ = [
    "findings_text",
    "fusion_text",
    "hit_json",
    "hit_text",
    "info_text",
    "one_line",
    "side_by_side",
    "stage_times_text",
]

SNIPPET = 240
TERMS_SHOWN = 8
MARKS = "\x01\x02"
"""What stands around a word that was found; a text that is shown has no such characters left."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def hit_text(hit: Hit, highlight: bool = False) -> str:
    """Return a hit in a few lines: rank, score, id and title, what each leg said, the start of the best passage.

    highlight: show the part of it with the words that were found, and these in bold letters, in the title too.
    """
    title = isolated(_bold(_marked(hit.title, hit.title_highlights)).strip())
    lines = [f"{hit.rank:>2}. {hit.score:.4f}  {one_line(hit.doc_id)}  {title}".rstrip()]
    said = [f"{leg} #{part.rank} {part.score:.3f}" for leg, part in hit.parts.items()]
    passage = hit.text
    if hit.chunks:
        best = hit.chunks[0]
        said.append(f"characters {best.start}-{best.end} of {len(hit.text)}")
        passage = best.text
    lines.append(f"    {' | '.join(said)}")
    shown = _marked_snippet(snippet(hit, length=SNIPPET), hit) if highlight else one_line(_snippet(passage))
    lines += [f"    {line}" for line in _wrapped(shown, max(shutil.get_terminal_size().columns - 4, 20))]
    if hit.stages:
        lines += _packed(_joined([f"{stage.stage} #{stage.rank} {stage.score:.3f}" for stage in hit.stages], " |"))
    for stage in hit.stages:
        if stage.matches:
            lines += _packed([f"{stage.stage}:", *_terms(stage.matches)])
    for leg in dict.fromkeys(match.leg for match in hit.terms):
        matches = [match for match in hit.terms if match.leg == leg]
        lines += _packed([f"{leg} terms:", *_terms(matches)])
    return "\n".join(lines)


def _packed(parts: Sequence[str]) -> list[str]:
    """Return parts side by side in lines that fit the terminal, none divided, those after the first line further in."""
    room = shutil.get_terminal_size().columns
    lines = [f"    {parts[0]}"] if parts else []
    for part in parts[1:]:
        longer = f"{lines[-1]} {part}"
        if columns(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(f"        {part}")
    return lines


def stage_times_text(hit: Hit) -> str:
    """Return what each stage took, for all hits together: any one of them knows."""
    return "took: " + ", ".join(f"{stage.stage} {stage.milliseconds:.0f} ms" for stage in hit.stages)


def _marked_snippet(part: Snippet, hit: Hit) -> str:
    """Return a snippet with MARKS around what was found, and dots where the text goes on."""
    before, behind = "... " if part.start else "", " ..." if hit.text[part.end :].strip() else ""
    return f"{before}{_marked(part.text, part.highlights)}{behind}"


def _marked(text: str, spans: Sequence[Span]) -> str:
    """Return a text in one line with MARKS around the spans."""
    shown, last = "", 0
    for start, end in spans:
        before, found = one_line(_flat(text[last:start])), one_line(_flat(text[start:end]))
        shown, last = f"{shown}{before}{MARKS[0]}{found}{MARKS[1]}", end
    return shown + one_line(_flat(text[last:]))


def _bold(marked: str) -> str:
    return marked.replace(MARKS[0], "\x1b[1m").replace(MARKS[1], "\x1b[0m")


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, each with its own codes for bold letters in place of MARKS."""
    lines, bold = [], False
    for line in wrapped(text, width):
        marked = (MARKS[0] if bold else "") + line
        bold = marked.rfind(MARKS[0]) > marked.rfind(MARKS[1])
        marked += MARKS[1] if bold else ""
        lines.append(_bold(marked))
    return lines


def one_line(text: str) -> str:
    """Return a text with its control characters escaped: they could end a line or steer the terminal."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _snippet(text: str) -> str:
    """Return the start of a text, cut at a space unless that would lose more than half: not all scripts have spaces."""
    start = " ".join(text[: 2 * SNIPPET].split())
    if len(start) <= SNIPPET and len(text) <= 2 * SNIPPET:
        return start
    cut = start.rfind(" ", SNIPPET // 2, SNIPPET + 1)
    return f"{start[: cut if cut > 0 else SNIPPET]} ..."


def _terms(matches: Sequence[TermMatch]) -> list[str]:
    """Return "term query x document" of the best matches."""
    shown = [f"{isolated(one_line(m.term))} {m.query_weight:.2f}x{m.doc_weight:.2f}" for m in matches[:TERMS_SHOWN]]
    more = len(matches) - len(shown)
    return _joined(shown, ",") + ([f"and {more} more"] if more > 0 else [])


def _joined(parts: Sequence[str], sign: str) -> list[str]:
    """Return parts with a sign behind all but the last.

    >>> _joined(["a", "b"], ",")
    ['a,', 'b']
    """
    return [*(f"{part}{sign}" for part in parts[:-1]), *parts[-1:]]


def hit_json(hit: Hit, highlight: bool = False) -> str:
    """Return a hit as one line of JSON, with its snippet where words are to be highlighted."""
    return json.dumps(hit_to_wire(hit, snippet(hit) if highlight else None), ensure_ascii=False)


def side_by_side(columns: Mapping[str, Sequence[str]], width: int | None = None) -> str:
    """Return lists of short texts as columns under their names.

    >>> print(side_by_side({"bm25": ["a", "b"], "dense": ["c"]}, width=12))
    bm25  dense
    a     c
    b
    """
    width = width or shutil.get_terminal_size().columns
    cell = max(width // max(len(columns), 1), 6)
    depth = max((len(texts) for texts in columns.values()), default=0)
    rows = [list(columns)] + [[texts[i] if i < len(texts) else "" for texts in columns.values()] for i in range(depth)]
    return "\n".join("".join(_fit(one_line(text), cell - 1).ljust(cell) for text in row).rstrip() for row in rows)


def _fit(text: str, width: int) -> str:
    """Cut a long text at its front: the end of a dotted name or a path says more."""
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def findings_text(findings: Sequence[Finding]) -> str:
    """Return the doctor's findings, one a line, with the fix under those that need one."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.name}: {finding.found}")
        if finding.status != "ok":
            lines.append(f"{'':<8} needed: {finding.needed}")
            lines.append(f"{'':<8} fix: {finding.fix}")
    return "\n".join(lines)


def info_text(info: IndexInfo, fusion: FusionConfig | None = None) -> str:
    """Return what is in an index, one subject a line; `fusion` is the one that was stored in it."""
    sizes = ", ".join(f"{part} {human_bytes(size)}" for part, size in info.sizes.items())
    encoder = info.encoder
    views = f"{encoder.dense_dim} dimensions, {encoder.vocab_size} terms, sha256 {encoder.sha256[:12]}"
    newer = info.rows - info.dense_rows
    faiss = info.dense_type if info.dense_type in ("none", "flat") else f"{info.dense_type}, {newer} newer rows outside"
    lines = {
        "documents": f"{info.documents} ({info.empty} without text, {info.truncated} longer than the encoder reads)",
        **(
            {"unread": f"{info.unread} of {info.chunks} texts: the encoder does not read their language"}
            if info.unread
            else {}
        ),
        "rows": f"{info.rows} ({info.row_dtype}), {info.dead_rows} of them dead, which no score counts",
        "size": f"{sizes}; {human_bytes(info.bytes_per_document)} a document",
        "encoder": f"{encoder.name} ({views})" if encoder.sha256 else encoder.name,
        "faiss": f"{faiss} (chosen: {info.dense_choice})",
        "bm25": f"k1 {info.k1}, b {info.b}, {_analysis(info)}",
        "fusion": "default" if fusion is None else fusion_text(fusion),
        "commit": str(info.commit),
    }
    if info.shards:
        least, most = min(info.shards.values()), max(info.shards.values())
        lines["shards"] = f"{len(info.shards)}, of {least} to {most} documents"
    if info.chunking is not None:
        lines["chunks"] = f"{info.chunks}, {info.chunks / max(info.documents, 1):.1f} a document, {info.chunking}"
    return "\n".join(f"{name:<10} {value}" for name, value in lines.items())


def _analysis(info: IndexInfo) -> str:
    """Return how words are read, with the shares of the languages where there are several."""
    if not info.languages:
        return info.analyzer
    total = sum(info.languages.values())
    shares = [f"{code} {count / total:.0%}" for code, count in info.languages.items()]
    return f"{info.analyzer}: {', '.join(shares[:8])}{', ...' if len(shares) > 8 else ''}"


def fusion_text(fusion: FusionConfig) -> str:
    """Return a fusion as the options that ask for it.

    >>> from retriever.search.fusion.fusion import FusionConfig
    >>> fusion_text(FusionConfig(weights={"bm25": 0.25, "dense": 0.75}))
    '--normalisation min-max --weights bm25=0.25,dense=0.75'
    """
    weights = ",".join(f"{leg}={weight:g}" for leg, weight in fusion.weights.items())
    method = "" if fusion.method == "weighted-sum" else f"--fusion {fusion.method} "
    return f"{method}--normalisation {fusion.normalisation} --weights {weights}"
