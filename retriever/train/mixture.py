"""The batches of a run: each from one source and, optionally, from one topic."""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING

from torch.utils.data import IterableDataset

from retriever.train.data.examples import batches, stream
from retriever.train.data.topics import by_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.train.data.examples import Example, SourceConfig
    from retriever.train.settings import TrainConfig

__all__ = ["Mixture"]


def _stream(source: SourceConfig, config: TrainConfig) -> Iterator[Example]:
    examples = stream([source], seed=config.seed)
    if config.topic_window == 0:
        return examples
    return by_topic(examples, config.batch, config.topic_window, config.seed)


class Mixture(IterableDataset):  # type: ignore[type-arg]
    """An endless stream of batches, each from one source, so that its passages are hard for each other's queries."""

    def __init__(self, config: TrainConfig, skip: int) -> None:
        """Leave out the first `skip` batches."""
        self._config = config
        self._skip = skip

    def __iter__(self) -> Iterator[list[Example]]:
        return islice(self._all(), self._skip, None)

    def _all(self) -> Iterator[list[Example]]:
        config = self._config
        chooser = random.Random(config.seed)
        sources = [batches(_stream(source, config), config.batch) for source in config.sources]
        weights = [source.weight for source in config.sources]
        while True:
            [place] = chooser.choices(range(len(sources)), weights)
            yield next(sources[place])
