"""Handlers of faults are those of before, whatever was installed meanwhile."""

from __future__ import annotations

import ctypes
import signal

from retriever.cluster.signals import FAULTS, SIZE, signal_handlers_kept

IGNORED = ctypes.c_void_p(1)


def handlers() -> list[bytes]:
    """Return the address of each handler: where the C library's description of one begins, on Linux."""
    library, found = ctypes.CDLL(None), []
    for number in FAULTS:
        room = ctypes.create_string_buffer(SIZE)
        library.sigaction(int(number), None, room)
        found.append(room.raw[:8])
    return found


def test_handlers_of_faults_come_back() -> None:
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    before = handlers()
    with signal_handlers_kept():
        for number in FAULTS:
            library.signal(int(number), IGNORED)
        assert handlers() != before
    assert handlers() == before
    assert signal.SIGSEGV in FAULTS
