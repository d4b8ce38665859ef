"""What is known of public data sets before they are read: their rules, their sizes, figures that others published."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.config import load_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PublishedFigure", "RegistryEntry", "entries", "entry", "families"]

FILE = Path(__file__).parents[2] / "configs" / "eval" / "datasets.yaml"
LANGUAGES_FILE = FILE.with_name("languages.yaml")
HUB = re.compile(r"^(beir|mteb)[/-](?!nl-)")
TRANSLATED = {re.compile(r"(?:clips/)?beir-nl-(.+)"): "nl", re.compile(r"(?:clarin-knext/)?(.+)-pl"): "pl"}
"""Translations of BEIR's data sets, by what they are called: BEIR-NL, and those that PIRB takes."""


class PublishedFigure(NamedTuple):
    """What others measured on the entry's split; `measure` is an ir-measures name, `value` is between 0 and 1.

    not_comparable: why this figure cannot stand beside ours, "" where it can.
    """

    system: str
    label: str
    measure: str
    value: float
    source: str
    not_comparable: str


class RegistryEntry(NamedTuple):
    """One data set.

    split: the one that is reported. documents, queries: how many there are; queries is 0 where that is not known.
    fields: what a document has. md5: of BEIR's archive, "" for none. public: whether that can be downloaded.
    exclude_self: the document with the query's own id is no hit. language: of the documents. give: what names the data
    set to `retriever evaluate --dataset`, "" for BEIR's own names.
    """

    name: str
    split: str
    documents: int
    queries: int
    fields: tuple[str, ...]
    md5: str
    public: bool
    exclude_self: bool
    figures: tuple[PublishedFigure, ...]
    language: str = "en"
    give: str = ""


def entry(name: str) -> RegistryEntry | None:
    """Return what is known of a data set, None if nothing is; "BeIR/ArguAna" and "mteb/arguana" are "arguana".

    >>> entry("BeIR/arguana").exclude_self, entry("clips/beir-nl-arguana").language
    (True, 'nl')
    """
    short = HUB.sub("", name.lower())
    if found := entries().get(short) or families().get(short):
        return found
    for pattern, language in TRANSLATED.items():
        original = entries().get(match[1]) if (match := pattern.fullmatch(short)) else None
        if original is not None:
            return original._replace(name=short.rpartition("/")[2], md5="", figures=(), language=language)
    return None


@cache
def entries() -> Mapping[str, RegistryEntry]:
    """Return all data sets by name."""
    values = load_yaml(FILE)
    systems: dict[str, dict[str, str]] = values["systems"]
    found = {}
    for name, known in values["datasets"].items():
        figures = tuple(
            PublishedFigure(
                system=system,
                label=systems[system]["label"],
                measure=measure,
                value=value,
                source=systems[system]["source"],
                not_comparable=systems[system].get("not_comparable", ""),
            )
            for system, measured in known.get("figures", {}).items()
            for measure, value in measured.items()
        )
        found[name] = RegistryEntry(
            name=name,
            split=known.get("split", "test"),
            documents=known["documents"],
            queries=known.get("queries", 0),
            fields=tuple(known["fields"]),
            md5=known.get("md5", ""),
            public=known.get("public", True),
            exclude_self=known.get("exclude_self", False),
            figures=figures,
        )
    return found


@cache
def families() -> Mapping[str, RegistryEntry]:
    """Return the data sets in other languages by FAMILY-LANGUAGE, and by what the hub's names are called."""
    found = {}
    for family, known in load_yaml(LANGUAGES_FILE)["families"].items():
        for code, (documents, queries) in known["sizes"].items():
            one = RegistryEntry(
                name=f"{family}-{code}",
                split=known["split"],
                documents=documents,
                queries=queries,
                fields=tuple(known["fields"]),
                md5="",
                public=True,
                exclude_self=False,
                figures=(),
                language=code,
                give=known["give"].replace("LANGUAGE", code),
            )
            found[one.name] = one
            if "also" in known:
                part = {code: part for part, code in known.get("parts", {}).items()}.get(code, code)
                found[f"{known['also']}-{part}" if len(known["sizes"]) > 1 else known["also"]] = one
    return found
