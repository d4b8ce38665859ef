"""Pipelines as text: one line, or YAML. Both become the same calls, which one function makes stages of.

line   := [mode] { ">" stage }       mode: "hybrid", a leg, or legs joined by "+"; left out, "hybrid"
stage  := name [ "(" [setting { "," setting }] ")" ]
setting := [name "="] value          without names they are the stage's first settings, in order
value  := number | true | false | none | word | '"' anything but '"' '"'
"""

from __future__ import annotations

import dataclasses
import re
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.config import from_mapping, load_yaml
from retriever.names import HYBRID
from retriever.rank.stage import STAGES, Stage
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ParsedPipeline", "alternatives", "parse_line", "read_file"]

TOKEN = re.compile(r'\s*(?:(?P<sign>[>(),=])|"(?P<quoted>[^"]*)"|(?P<word>[^\s>(),="]+))')
EXAMPLE = "bm25+dense > rerank(cross-encoder:NAME, depth=50) > mmr(0.7)"
CONSTANTS = {"true": True, "false": False, "none": None}


class ParsedPipeline(NamedTuple):
    """What a pipeline is made of."""

    mode: str
    stages: tuple[Stage, ...]


class _Token(NamedTuple):
    """A sign, or else a word, which may have been quoted; where: its first character in the line."""

    sign: str
    word: str
    quoted: bool
    where: int


class _Setting(NamedTuple):
    """A setting of a stage, its name "" where none was given."""

    name: str
    value: Any


def parse_line(line: str) -> ParsedPipeline:
    """Read a pipeline from a line; raise UserError where that cannot be done."""
    return _Parser(line).pipeline()


def alternatives(line: str) -> list[str]:
    """Return the lines that a line with alternatives stands for: words joined by "|", in quotation marks one.

    >>> alternatives("hybrid > feedback(weight=0.5|1)")
    ['hybrid > feedback(weight=0.5)', 'hybrid > feedback(weight=1)']
    """
    parts = []
    for found in TOKEN.finditer(line):
        space = found[0][: found.start(found.lastgroup or 0) - found.start()]
        words = found["word"].split("|") if found["word"] else []
        parts.append([space + word for word in words] or [found[0]])
    return ["".join(chosen) for chosen in product(*parts)]


def read_file(path: str | Path) -> ParsedPipeline:
    """Read a pipeline from a YAML file.

    It holds `mode` and `stages`: a list of names, or of mappings of one name to its settings.
    """
    values = load_yaml(path)
    unknown = sorted(set(values) - {"mode", "stages"}, key=str)
    if unknown:
        raise UserError(f"{path}: unknown setting {unknown[0]!r}; a pipeline has mode and stages")
    mode, stages = values.get("mode", HYBRID), values.get("stages") or []
    if not isinstance(mode, str) or not isinstance(stages, list):
        raise UserError(f"{path}: need a mode (text) and stages (a list); write them as in `- mmr: {{balance: 0.7}}`")
    return ParsedPipeline(mode, tuple(_stage_of(entry, f"{path}: stage {n}") for n, entry in enumerate(stages, 1)))


def _stage_of(entry: object, where: str) -> Stage:
    if isinstance(entry, str):
        return _stage(entry, [], where)
    if isinstance(entry, dict) and len(entry) == 1:
        [(name, settings)] = entry.items()
        if isinstance(name, str) and isinstance(settings, dict | None):
            return _stage(name, [_Setting(str(key), value) for key, value in (settings or {}).items()], where)
    raise UserError(
        f"{where}: found {entry!r}, need a name, or one name with its settings, as in `mmr: {{balance: 0.7}}`"
    )


def _stage(name: str, settings: Sequence[_Setting], where: str) -> Stage:
    """Make a stage of its name and settings."""
    if name not in STAGES:
        raise UserError(f"{where}: no stage is called {name!r}; there are {', '.join(STAGES)}")
    kind = STAGES[name]
    places = [field.name for field in dataclasses.fields(kind) if not field.kw_only]
    values: dict[str, Any] = {}
    for place, setting in enumerate(settings):
        if not setting.name and place >= len(places):
            raise UserError(f"{where}: {name} takes {len(places)} settings without a name: {', '.join(places)}")
        key = setting.name or places[place]
        if key in values:
            raise UserError(f"{where}: {name} has {key} twice; give it once")
        values[key] = setting.value
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in values
    ]
    if missing:
        raise UserError(f"{where}: {name} needs {missing[0]}; its settings are {', '.join(places)}")
    return from_mapping(kind, values, f"{where}: {name}")


class _Parser:
    """Reads one line, from left to right."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._tokens = list(self._split())
        self._place = 0

    def _split(self) -> list[_Token]:
        tokens, place = [], 0
        line = self._line.rstrip()
        while place < len(line):
            found = TOKEN.match(line, place)
            if found is None:
                raise self._error(place, "a quotation mark has no end")
            place = found.end()
            text, where = found[found.lastgroup or 0], found.start(found.lastgroup or 0)
            sign = found.lastgroup == "sign"
            tokens.append(_Token(text if sign else "", "" if sign else text, found.lastgroup == "quoted", where))
        return tokens

    def _error(self, where: int, problem: str) -> UserError:
        found = (
            f"at character {where + 1}, {self._line[where : where + 20]!r}" if where < len(self._line) else "at its end"
        )
        return UserError(f"pipeline {self._line!r}: {problem} {found}; write it as {EXAMPLE}")

    @property
    def _next(self) -> _Token:
        end = _Token("end", "", False, len(self._line))
        return self._tokens[self._place] if self._place < len(self._tokens) else end

    def _take(self, sign: str) -> bool:
        taken = self._next.sign == sign
        self._place += taken
        return taken

    def _word(self, what: str) -> _Token:
        token = self._next
        if token.sign:
            raise self._error(token.where, f"{what} is missing")
        self._place += 1
        return token

    def pipeline(self) -> ParsedPipeline:
        mode, stages = HYBRID, []
        if not self._tokens:
            raise self._error(0, "nothing is there")
        if self._next.word in STAGES:  # the mode is left out
            stages.append(self._stage())
        elif self._next.sign != ">":
            mode = self._word("a mode").word
        while self._next.sign != "end":
            if not self._take(">"):
                raise self._error(self._next.where, "need > before a stage")
            stages.append(self._stage())
        return ParsedPipeline(mode, tuple(stages))

    def _stage(self) -> Stage:
        name = self._word("the name of a stage").word
        settings: list[_Setting] = []
        if self._take("("):
            while not self._take(")"):
                if settings and not self._take(","):
                    raise self._error(self._next.where, "need , or )")
                settings.append(self._setting(bool(settings) and bool(settings[-1].name)))
        return _stage(name, settings, f"pipeline {self._line!r}")

    def _setting(self, named: bool) -> _Setting:
        first = self._word("a setting")
        if self._take("="):
            return _Setting(first.word, _value(self._word(f"the value of {first.word}")))
        if named:
            raise self._error(first.where, "a setting without a name stands behind one with a name")
        return _Setting("", _value(first))


def _value(token: _Token) -> Any:
    """Return what a word means."""
    if token.quoted:
        return token.word
    if token.word in CONSTANTS:
        return CONSTANTS[token.word]
    for kind in (int, float):
        try:
            return kind(token.word)
        except ValueError:
            continue
    return token.word
