"""Where sentences end: by punctuation and what follows it, without a model and for any script."""

from __future__ import annotations

import re

from retriever.types import Span

__all__ = ["sentence_ends", "sentences"]

CLOSING = r"""["'\u2019\u201d\xbb)\]\u300d\u300f\uff09]*"""
"""Quotation marks and brackets that may stand behind the end of a sentence."""
END = re.compile(
    rf"""(?<![.!?\u2026])(?P<stop>[.!?\u2026]++){CLOSING}+\s++  # and white space has to follow
    | [\u3002\uff01\uff1f\uff61]++{CLOSING}+\s*+   # Chinese and Japanese, which write no spaces
    | [\u0964\u0965\u06d4\u061f]\s*+              # Hindi, Urdu, Arabic
    | (?<![^\S\n])[^\S\n]*+\n\s*\n\s*+           # an empty line ends what is before it, whatever that is
    """,
    re.VERBOSE,
)
"""Runs of signs are matched from their first sign on and never given back in part: the time is linear in any text."""
ABBREVIATION = re.compile(
    r"""(?:^|[\s("'\[\u201c\u2018\xab])
    (?: (?i: al|approx|ca|cf|col|dept|dr|eds?|e\.g|eqs?|est|etc|figs?|gen|gov|i\.e|inc|jr|lt|ltd|mrs?|ms|mt|nos?|op|pp?
           | prof|refs?|reps?|rev|secs?|sen|sr|st|tab|u\.k|u\.s|viz|vols?|vs
           | abb|bd|bzw|evtl|ggf|hrsg|inkl|mio|mrd|nr|sog|vgl|z | mlle|mme|n\.b | pág|núm|sra|ud|uds | ul|tzw )
    | [A-Z] )\Z""",
    re.VERBOSE,
)
"""A word after which a full stop does not end a sentence, and what is before it."""
LONGEST_ABBREVIATION = 8


def sentence_ends(text: str) -> list[int]:
    """Return where each sentence ends, white space after it included; the last end is the end of the text.

    A full stop after an abbreviation or a single letter ends none; nor does one before a small letter, unless the
    text has no capitals.

    >>> text = "Dr. J. Smith saw 3.5 cells, cf. Fig. 2. He left! Why?"
    >>> [text[start:end] for start, end in zip([0, *sentence_ends(text)], sentence_ends(text))]
    ['Dr. J. Smith saw 3.5 cells, cf. Fig. 2. ', 'He left! ', 'Why?']
    """
    cased = text != text.lower()
    ends = [found.end() for found in END.finditer(text) if not _goes_on(text, found, cased)]
    if text and (not ends or ends[-1] < len(text)):
        ends.append(len(text))
    return ends


def sentences(text: str) -> list[Span]:
    """Return the sentences of a text, which hold all of it, white space between them included.

    >>> [start for start, _ in sentences("It rained. It stopped.")]
    [0, 11]
    """
    ends = sentence_ends(text)
    return [Span(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _goes_on(text: str, found: re.Match[str], cased: bool) -> bool:
    """Return whether the sentence continues after this punctuation."""
    stop, after = found["stop"], text[found.end() : found.end() + 1]
    if stop is None or found[0].count("\n") > 1:
        return False
    before = text[max(0, found.start() - LONGEST_ABBREVIATION) : found.start()]
    return (cased and after.islower()) or (stop == "." and ABBREVIATION.search(before) is not None)
