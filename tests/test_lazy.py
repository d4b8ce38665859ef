from __future__ import annotations

import copy
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.lazy import lazy
from retriever.network.folder import load_model


class Slow:
    def __init__(self) -> None:
        self.made = 0

    @lazy
    def value(self) -> int:
        """Say how often it was made."""
        self.made += 1
        time.sleep(0.02)
        return self.made

    @lazy
    def failing(self) -> int:
        self.made += 1
        raise ValueError("not yet")


def test_threads_that_come_at_once_make_it_once() -> None:
    slow, start = Slow(), threading.Barrier(8)

    def read(_: int) -> int:
        start.wait()
        return slow.value

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [1] * 8
    assert slow.made == 1 and Slow.value.__doc__ == "Say how often it was made."


def test_an_error_is_not_the_value() -> None:
    slow = Slow()
    for count in (1, 2):
        with pytest.raises(ValueError, match="not yet"):
            _ = slow.failing
        assert slow.made == count
    assert pickle.loads(pickle.dumps(slow)).made == 2, "no lock is left behind"


def test_one_at_a_time_makes_it_after_a_failure_too() -> None:
    """The lock stays while somebody waits for it: who comes after the one that failed waits, too."""
    together, most, attempts = 0, 0, 0
    first, late = threading.Event(), threading.Event()

    class Fragile:
        @lazy
        def value(self) -> int:
            nonlocal together, most, attempts
            attempts += 1
            together += 1
            most = max(most, together)
            try:
                if attempts == 1:
                    first.set()
                    late.wait(60)
                    raise ValueError("not yet")
                time.sleep(0.05)
                return attempts
            finally:
                together -= 1

    fragile = Fragile()

    def read() -> int | str:
        try:
            return fragile.value
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        failed = pool.submit(read)
        first.wait(60)
        waiting = [pool.submit(read) for _ in range(2)]
        time.sleep(0.05)  # they wait for the lock
        late.set()
        assert failed.result() == "not yet"
        new = [pool.submit(read) for _ in range(3)]
        assert {one.result() for one in (*waiting, *new)} == {2}
    assert (most, attempts) == (1, 2)
    assert pickle.dumps(vars(fragile)), "no lock is left behind"


def test_instances_are_apart_and_can_be_copied() -> None:
    one, other = Slow(), Slow()
    assert one.value == other.value == 1
    assert copy.copy(one).value == pickle.loads(pickle.dumps(one)).value == 1
    del one.value
    assert one.value == 2


def test_first_queries_from_many_threads_load_the_network_once(
    tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []

    def counting(folder: Path) -> object:
        loads.append(folder)
        return load_model(folder)

    monkeypatch.setattr("retriever.encoder.moe.networks.load_model", counting)
    start = threading.Barrier(6)
    encoder = load_encoder(str(tiny_encoder_folder), RuntimeConfig(precision="float32"), lazy=True)

    def encode(_: int) -> float:
        start.wait()
        dense = encoder.encode_documents(["the sea"], sparse=False).dense
        assert dense is not None
        return float(dense.sum())

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(encode, range(6)))) == 1
    assert len(loads) == 1
