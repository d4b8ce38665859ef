"""What an encoder folder says without its network: the tokeniser, the terms, and the lexical part's learned values."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from retriever.encoder.vocabulary.long_words import LongWords
from retriever.encoder.vocabulary.query_terms import heaviest, read_query_terms
from retriever.encoder.vocabulary.readability import Readability
from retriever.languages import folder_languages, foreign
from retriever.network.checkpoint import read_values
from retriever.network.lexical import blended_fractions, document_terms, idf, token_counts
from retriever.types import TermSpan, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from retriever.types import BoolArray, FloatArray, TermStatistics

__all__ = ["Lexicon", "frame_ids"]

PIECE = 2_000
"""Characters: a long text is tokenised in pieces, in half of the time that it takes as a whole."""
BOUNDARY = re.compile(r"""[ \t\n\r.,;:!?"'*=_#/+-]""")
"""Signs before which BERT's tokeniser divides any text: white space, and punctuation, of which each is a token."""
WORD = re.compile("w+")
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


class Lexicon:
    """Makes token ids of texts and weighs terms by the formulas of `retriever.network.lexical`; needs no torch.

    vocabulary: the term of each id. opening, closing: the ids that frame what the network reads. stem, fraction,
    query_weight (vocab_size,): the term that stands for each, the share of training passages that hold it, and what a
    query's count of it is multiplied by. languages: that the network reads, None where its model card does not say.
    """

    def __init__(self, folder: Path, max_fraction: float = 1.0) -> None:
        """Read the folder; raise UserError where its tokeniser and weights are damaged or do not fit each other.

        max_fraction: terms that a larger share of the training passages holds are in no sparse view: function words
        and punctuation, whose postings are the longest and whose weights in a query the smallest.
        """
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(
                f"{folder}/tokenizer.json: cannot be read ({error}); copy or build the encoder again"
            ) from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        names = ("fraction", "log_weight", "gain", "expansion")
        values = read_values(folder, ["sparse_head.stem", *(f"lexical.{name}" for name in names)])
        self.stem: NDArray[np.int32] = values["sparse_head.stem"]
        self.fraction: FloatArray = values["lexical.fraction"]
        self._gain, self._expansion = float(values["lexical.gain"]), float(values["lexical.expansion"])
        if not isinstance(max_fraction, int | float) or not 0 <= max_fraction <= 1:
            raise UserError(f"{folder}/config.json: max_fraction is {max_fraction!r}, allowed are 0 to 1")
        self._distinctive = self.fraction <= max_fraction
        self.query_weight: FloatArray = idf(self.fraction) * np.exp(values["lexical.log_weight"])
        size = self.tokenizer.get_vocab_size()
        if size != len(self.stem):
            raise UserError(
                f"{folder}: the tokenizer knows {size} terms but the weights {len(self.stem)}: "
                "they are of another vocabulary; put the tokenizer that the weights were trained with beside them"
            )
        self.vocabulary: Sequence[str] = [self.tokenizer.id_to_token(i) or "" for i in range(size)]
        self.opening, self.closing = frame_ids(self.tokenizer)
        self.readability = Readability(self.tokenizer)
        added = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        self._divides = type(self.tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer" and not any(
            map(BOUNDARY.search, added)
        )
        self.languages = folder_languages(folder)
        self._query_terms = read_query_terms(folder, size)

    def foreign(self, texts: Sequence[str]) -> BoolArray:
        """Return bool (n,): True where a text is in a language that the network was not trained for."""
        if self.languages is None:
            return np.zeros(len(texts), dtype=np.bool_)
        return np.array([foreign(text, self.languages) for text in texts], dtype=np.bool_)

    def token_starts(self, text: str) -> list[int]:
        """Return at which character of a text each of its tokens starts, ascending."""
        text = _clean(text)
        if len(text) > PIECE and self._long_words is not None:
            shortened, words = self._long_words.shortened(text)
            return self._long_words.restored(self._token_starts(shortened), words)
        return self._token_starts(text)

    def _token_starts(self, text: str) -> list[int]:
        begins = self._begins(text)
        pieces = [text[begin:end] for begin, end in pairwise([*begins, len(text)])]
        encodings = self.tokenizer.encode_batch(pieces, add_special_tokens=False)
        return [
            begin + start for begin, encoding in zip(begins, encodings, strict=True) for start, _ in encoding.offsets
        ]

    @cached_property
    def _long_words(self) -> LongWords | None:
        return LongWords.of(self.tokenizer, self.vocabulary) if self._divides else None

    def _begins(self, text: str) -> list[int]:
        """Return where pieces of a text begin whose tokens are those of the whole text."""
        begins = [0]
        while self._divides and len(text) > begins[-1] + PIECE:
            boundary = BOUNDARY.search(text, begins[-1] + PIECE)
            if boundary is None:
                break
            begins.append(boundary.start())
        return begins

    def term_spans(self, text: str) -> list[TermSpan]:
        """Return for each token of a text the whole word that it is a part of, with the term that stands for it.

        Where words have no spaces between them, as in Chinese and Thai, a token is a word.
        """
        text = _clean(text)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        words = Words(text)
        found = []
        for term, (start, end) in zip(self.stem[encoding.ids].tolist(), encoding.offsets, strict=True):
            if text[start:end][:1].isspace():  # the space before a word may be counted in
                start += len(text[start:end]) - len(text[start:end].lstrip())
            if start < end:
                found.append(TermSpan(term, *words.whole(start, end)))
        return found

    def token_ids(self, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
        """Return the token ids of each text with `prompt` before it, unframed."""
        clean = [_clean(prompt + text) for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(clean, add_special_tokens=False)]

    def counts(self, token_ids: Sequence[Sequence[int]]) -> csr_matrix:
        """Return float32 (n, vocab_size): how often the tokens of each stem occur in each text."""
        return token_counts(token_ids, self.stem)

    def documents(self, counts: csr_matrix, expansions: csr_matrix | None) -> csr_matrix:
        """Return the sparse view of documents, float32 (n, vocab_size), of their token counts and maybe expansions."""
        own = document_terms(counts, self._gain)
        return self._without_common(own if expansions is None else (expansions + own).tocsr())

    def queries(self, counts: csr_matrix, expansions: csr_matrix | None) -> csr_matrix:
        """Return the sparse view of queries, float32 (n, vocab_size), of token counts and the network's expansions.

        Without these, what goes with the tokens by the encoder's table takes their place, if it has one.
        """
        if expansions is None and self._query_terms is not None:
            expansions = self._query_terms.expansions(counts)
        terms = self._without_common(counts if expansions is None else (counts + self._expansion * expansions).tocsr())
        terms.data *= self.query_weight[terms.indices]
        return terms

    def _without_common(self, terms: csr_matrix) -> csr_matrix:
        """Return the terms (n, vocab_size) that not too many passages hold, sorted, in arrays of their own."""
        kept = self._distinctive[terms.indices]
        ends = np.concatenate([[0], np.cumsum(kept)])[terms.indptr].astype(terms.indptr.dtype)
        found = csr_matrix((terms.data[kept], terms.indices[kept], ends), terms.shape)
        found.sort_indices()
        return found

    def adapt(self, terms: csr_matrix, statistics: TermStatistics, *, expanded: bool) -> csr_matrix:
        """Return query terms (n, vocab_size) weighted for the document frequencies of the collection searched.

        expanded: by the network; of such queries the heaviest terms are left, as many as the encoder says.
        """
        adapted = terms.copy()
        prior = self.fraction[terms.indices]
        found = statistics.document_frequency(terms.indices)
        adapted.data = terms.data * idf(blended_fractions(prior, found, statistics.documents)) / idf(prior)
        return heaviest(adapted, self._query_terms.most) if expanded and self._query_terms is not None else adapted


class Words:
    """The words of a text, by their characters; words of scripts without spaces between them are left out."""

    def __init__(self, text: str) -> None:
        spans = [word.span() for word in WORD.finditer(text.translate(_MARKED))]
        self._starts, self._ends = [start for start, _ in spans], [end for _, end in spans]

    def whole(self, start: int, end: int) -> tuple[int, int]:
        """Return where the words begin and end in which some characters do, of which there is one at least."""
        first, last = bisect_right(self._starts, start) - 1, bisect_right(self._starts, end - 1) - 1
        if first >= 0 and start < self._ends[first]:
            start = self._starts[first]
        return start, max(end, self._ends[last]) if last >= 0 else end


class _Marked(dict[int, str]):
    """For `str.translate`: "w" for a character of a word, a space for any other; each is looked at once."""

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        # Vowels of Hindi and others are marks, not letters.
        in_a_word = (sign.isalnum() or unicodedata.category(sign)[0] == "M") and not UNSPACED.match(sign)
        self[code] = "w" if in_a_word else " "
        return self[code]


_MARKED = _Marked()


def _clean(text: str) -> str:
    # A lone surrogate, as in an argument that was not UTF-8, is no character: the tokeniser would refuse the text.
    return text.encode(errors="replace").decode()


def frame_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the ids of the tokens that open and close a text."""
    ids = tokenizer.encode("", add_special_tokens=True).ids
    if len(ids) != 2:
        raise UserError(f"the tokenizer frames a text with {len(ids)} special tokens; BERT-shaped encoders use two")
    return ids[0], ids[1]
