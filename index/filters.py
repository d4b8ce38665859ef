r"""The language of filters: text to a tree of conditions. What they mean is in `lucene_filters`.

    filter     = both { "or" both }
    both       = negated { "and" negated }
    negated    = "not" negated | "(" filter ")" | condition
    condition  = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field [ "not" ] "in" "(" value { "," value } ")"
    field      = word | quoted            "id", or a metadata field
    value      = number | word | quoted
    quoted     = '...' or "...", a backslash keeps the next character

Keywords are written in small letters or in capitals. A word that looks like one, or holds other characters than
letters, digits and _ . : / @ + -, has to be quoted. An unquoted number compares as one where the field holds any;
true and false, in any case, as truth values where it holds these; a date or time, quoted or not, as a moment.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn, TypeAlias

from retriever.types import UserError

__all__ = ["AllOf", "AnyOf", "Condition", "Not", "OneOf", "Ordered", "Value", "parse_filter"]

TOKEN = re.compile(
    r"""\s*(?: (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
             | (?P<symbol><=|>=|!=|[<>=(),])
             | (?P<word>[\w.:/@+-]+) )""",
    re.VERBOSE | re.DOTALL,
)
NUMBER = re.compile(r"[+-]?(?:\d+(?P<point>\.\d*)?|(?P<fraction>\.\d+))(?P<exponent>[eE][+-]?\d+)?")
MOST_DIGITS = 4_000
KEYWORDS = ("and", "or", "not", "in")
ORDERS = ("<", "<=", ">", ">=")
DEEPEST = 100
"""Parentheses and nots inside each other; the parser calls itself for each."""


class Value(NamedTuple):
    """What a field is compared with: its text, and the number that it is if it is an unquoted one.

    number: an int where no point and no exponent is written: exact, whatever its size.
    """

    text: str
    number: int | float | None = None
    quoted: bool = False


class OneOf(NamedTuple):
    """The field has one of these values."""

    field: str
    values: tuple[Value, ...]


class Ordered(NamedTuple):
    """The field has a value that is <, <=, > or >= this one."""

    field: str
    order: str
    value: Value


class Not(NamedTuple):
    """The condition does not hold; so it is for documents that lack the field."""

    part: Condition


class AllOf(NamedTuple):
    """All of the conditions hold."""

    parts: tuple[Condition, ...]


class AnyOf(NamedTuple):
    """One of the conditions holds."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = "OneOf | Ordered | Not | AllOf | AnyOf"


def parse_filter(text: str) -> Condition:
    """Read a filter; raise UserError that names the place and what may stand there.

    >>> parse_filter("year >= 2020 and lang = en").parts[1]
    OneOf(field='lang', values=(Value(text='en', number=None, quoted=False),))
    """
    if not isinstance(text, str):
        raise UserError(f'filter is {text!r}, need a text such as "year >= 2020 and lang = en"')
    parser = _Parser(text)
    condition = parser.filter()
    if parser.token.kind != "end":
        parser.refuse("and, or, or the end")
    return condition


class _Token(NamedTuple):
    """kind: quoted, symbol, word, keyword or end. position: of its first character, from 1."""

    kind: str
    text: str
    position: int


class _Parser:
    """Reads one token ahead, a method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text, self._end, self._depth = text, 0, 0
        self.token = self._next()

    def _next(self) -> _Token:
        rest = len(self._text) - len(self._text[self._end :].lstrip())
        if rest == len(self._text):
            return _Token("end", "the end", rest + 1)
        found = TOKEN.match(self._text, self._end)
        if found is None:
            what = "a quote that is never closed" if self._text[rest] in "\"'" else repr(self._text[rest])
            raise UserError(
                f"filter {self._text!r}: found {what} at character {rest + 1}; "
                "put values with other characters than letters, digits and _.:/@+- in quotes"
            )
        self._end = found.end()
        kind = str(found.lastgroup)
        text = found[kind]
        if kind == "word" and text in (*KEYWORDS, *(word.upper() for word in KEYWORDS)):
            return _Token("keyword", text.lower(), rest + 1)
        if kind == "quoted":
            text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        return _Token(kind, text, rest + 1)

    def refuse(self, allowed: str) -> NoReturn:
        """Say what stands here and what may."""
        found = self.token.text if self.token.kind == "end" else repr(self.token.text)
        raise UserError(
            f"filter {self._text!r}: found {found} at character {self.token.position}, allowed: {allowed}; "
            "write it as in: year >= 2020 and not lang in (en, fr)"
        )

    def _take(self, kind: str, *texts: str) -> str | None:
        """Return the token's text and step past it, if it is of this kind and, if any are given, one of the texts."""
        token = self.token
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self.token = self._next()
        return token.text

    def filter(self) -> Condition:
        parts = [self._both()]
        while self._take("keyword", "or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._negated()]
        while self._take("keyword", "and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _negated(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            self.refuse(f"at most {DEEPEST} parentheses and nots inside each other")
        if self._take("keyword", "not"):
            condition: Condition = Not(self._negated())
        elif self._take("symbol", "("):
            condition = self.filter()
            if not self._take("symbol", ")"):
                self.refuse("and, or, )")
        else:
            condition = self._condition()
        self._depth -= 1
        return condition

    def _condition(self) -> Condition:
        field = self._take("word") or self._take("quoted")
        if field is None:
            self.refuse("a field, not, (")
        if order := self._take("symbol", *ORDERS):
            return Ordered(field, order, self._value())
        if sign := self._take("symbol", "=", "!="):
            same = OneOf(field, (self._value(),))
            return same if sign == "=" else Not(same)
        negated = self._take("keyword", "not")
        if not self._take("keyword", "in"):
            self.refuse("in" if negated else "=, !=, <, <=, >, >=, in, not in")
        among = OneOf(field, self._values())
        return Not(among) if negated else among

    def _values(self) -> tuple[Value, ...]:
        if not self._take("symbol", "("):
            self.refuse("( and values with commas between them")
        values = [self._value()]
        while self._take("symbol", ","):
            values.append(self._value())
        if not self._take("symbol", ")"):
            self.refuse("a comma, )")
        return tuple(values)

    def _value(self) -> Value:
        if self.token.kind == "quoted":
            return Value(self._take("quoted") or "", quoted=True)
        word = self._take("word")
        if word is None:
            self.refuse("a number, a word, or text in quotes")
        return Value(word, _number(word))


def _number(word: str) -> int | float | None:
    found = NUMBER.fullmatch(word)
    if found is None:
        return None
    if not any(found.groupdict().values()):
        if len(word) > MOST_DIGITS:
            raise UserError(
                f"filter: {word[:20]}...: a number of {len(word)} digits; {MOST_DIGITS} are compared at most"
            )
        return int(word)
    return float(word)
