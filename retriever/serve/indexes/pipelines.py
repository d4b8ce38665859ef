"""Pipelines that clients may ask for: those that the server has names for, and lines of stages that load no model."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from retriever.names import HYBRID
from retriever.rank import Pipeline
from retriever.rank.learned import stored_model
from retriever.rank.stage import STAGES
from retriever.serve.indexes.state import check_size, check_text
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.search.retriever import Retriever
    from retriever.serve.settings import Limits

__all__ = ["AskedPipeline", "Pipelines", "named_pipelines"]

NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<line>.+)", re.DOTALL)


class AskedPipeline(NamedTuple):
    """A pipeline, and what the log calls it: its name, or its line."""

    label: str
    pipeline: Pipeline


class Pipelines:
    """The pipelines of one server process, which share their models."""

    def __init__(self, lines: Mapping[str, str]) -> None:
        """Read lines by name; raise UserError for one that cannot be read. Models are loaded when they are needed."""
        self._named = {name: Pipeline.parse(line) for name, line in lines.items()}

    def find(self, text: str | None, limits: Limits) -> AskedPipeline | None:
        """Return the pipeline of a name or a line.

        Raises:
            UserError: it cannot be read, chooses a model itself, or reads more hits than an answer may have.
        """
        check_text("pipeline", text, limits.query)
        if text is None:
            return None
        if text in self._named:
            return AskedPipeline(text, self._named[text])
        pipeline = Pipeline.parse(text)
        for stage in pipeline.stages:
            if stage.loads:
                names = ", ".join(self._named) or "none"
                raise UserError(
                    f"{stage.name}: which models are loaded is for the server to say (--pipeline NAME=LINE); "
                    f"its own pipelines: {names}; give the name of one, or leave the stage out"
                )
        check_size("pipeline: the depth of a stage", pipeline.reads, limits.reads)
        return AskedPipeline(str(pipeline), pipeline)

    def of(self, retriever: Retriever) -> list[str]:
        """Return what may be asked of an index: the names, and a line for each stage that it has all for."""
        legs, settings = retriever.legs, retriever.reader.settings
        mode = HYBRID if len(legs) > 1 else legs[0]
        stages = ["feedback"] if len(legs) > 1 else ["feedback(rm3)"] if "bm25" in legs else []
        stages += ["late-interaction", "feedback > late-interaction"] if settings.tokens is not None else []
        lines = [f"{mode} > {stage}" for stage in stages]
        with suppress(UserError):
            learnt = stored_model(retriever.reader.commit_data.note).pipeline
            if not any(stage.loads for stage in Pipeline.parse(learnt).stages):
                lines.append(f"{learnt} > rescore")
        return [*self._named, *lines]


def named_pipelines(given: Sequence[str]) -> dict[str, str]:
    """Return lines by name, of "NAME=LINE" or "NAME=FILE".

    Raises:
        UserError: one has no name, or one that is taken or means something else; or it cannot be read.
    """
    found: dict[str, str] = {}
    for text in given:
        named = NAMED.fullmatch(text)
        if named is None:
            raise UserError(f"pipeline {text!r}: has no name; write it as in again='hybrid > feedback'")
        name, line = named["name"], named["line"]
        if name in found or name in STAGES or name == HYBRID:
            raise UserError(f"pipeline {text!r}: {name} is taken; give it another name")
        read = Pipeline.read if line.endswith((".yaml", ".yml")) else Pipeline.parse
        found[name] = str(read(line))
    return found
