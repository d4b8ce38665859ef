"""The networks that run an encoder folder, each loaded with the first text that needs it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from retriever.encoder.runtime import fastest_precision
from retriever.lazy import lazy
from retriever.network.folder import load_config, load_model
from retriever.processes import one_thread_after_fork
from retriever.types import UserError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from typing import TypeAlias

    from retriever.encoder.runtime import RuntimeConfig
    from retriever.network.int8.network import Int8Network
    from retriever.network.int8.query import QueryNetwork
    from retriever.network.int8.tiled import TiledNetwork
    from retriever.network.model import RetrieverModel

    Network: TypeAlias = RetrieverModel | Int8Network | TiledNetwork

__all__ = ["Networks"]


class Networks:
    """The network for packed batches, the one for a few texts, and the threads that batches run in."""

    def __init__(self, folder: Path, sha256: str, runtime: RuntimeConfig) -> None:
        """Take an encoder folder, the digest of its files, and how to run it."""
        self._folder, self._sha256, self._runtime, self._process = folder, sha256, runtime, os.getpid()

    @lazy
    def precision(self) -> str:
        """Return the precision that they run in."""
        chosen = self._runtime.precision
        return fastest_precision(self._runtime.device) if chosen == "auto" else chosen

    @lazy
    def batched(self) -> Network:
        """Return what encodes packed batches; raise UserError where it cannot run in this precision, on this device."""
        one_thread_after_fork()
        if self.precision == "int8":
            from retriever.network.int8.tiled import TiledNetwork, products_overflow, tiles_pay

            if self.few is not None and (tiles_pay() or products_overflow()):
                return TiledNetwork(self.few, load_config(self._folder))
            if products_overflow():
                raise UserError(
                    "precision 'int8': this processor has neither VNNI nor AMX, without which int8 products overflow; "
                    "use 'float32'"
                )
        model = load_model(self._folder)
        if self.precision == "int8":
            from retriever.network.int8.network import Int8Network

            return Int8Network(model)
        return self._placed(model)

    def _placed(self, model: RetrieverModel) -> RetrieverModel:
        """Put a network of floats into its precision and onto its device."""
        device = self._runtime.device
        model.set_precision(self.precision)
        try:
            model.to(device=device)  # type: ignore[call-arg]
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            reason = str(error).splitlines()[0]
            raise UserError(f"device {device!r} cannot be used ({reason}); use 'cpu'") from None
        from retriever.network.batches import batch_independent

        if self.precision == "bfloat16" and device == "cpu" and not batch_independent(model):
            raise UserError(
                "precision 'bfloat16': on this processor a text's vector would depend on the texts beside it; "
                "use 'float32' or 'int8'"
            )
        return model

    @lazy
    def few(self) -> QueryNetwork | None:
        """Return what encodes a few texts in int8, without torch; None where `batched` encodes them, too."""
        if self._runtime.device != "cpu" or not (self.precision == "int8" or self._runtime.quick_queries):
            return None
        from retriever.network.int8.weights import runs_alone

        if not runs_alone(self._folder):
            return None
        from retriever.network.int8.query import QueryNetwork

        return QueryNetwork(self._folder, self._sha256)

    @property
    def threads(self) -> ThreadPoolExecutor | None:
        """Return what runs batches side by side; None in a forked process, where the threads stayed behind."""
        return self._started_threads if self._process == os.getpid() else None

    @lazy
    def _started_threads(self) -> ThreadPoolExecutor | None:
        from retriever.encoder.moe.threads import encoding_threads

        return encoding_threads() if self._runtime.device == "cpu" else None
