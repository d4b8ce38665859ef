"""Files that are compared with their checksums beside other work: whoever relies on them waits, and hears of damage."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retriever.index.background_check import AT_ONCE, BackgroundCheck, Expected
from retriever.types import UserError

LARGE = b"0123456789abcdef" * (AT_ONCE // 16 + 1000)


def expected(path: Path, content: bytes) -> Expected:
    path.write_bytes(content)
    return Expected(path, len(content), zlib.crc32(content))


def test_what_is_whole_passes(tmp_path: Path) -> None:
    one, other = expected(tmp_path / "a", b"small"), expected(tmp_path / "b", LARGE)
    with (tmp_path / "b").open("ab") as file:
        file.write(b"what was added after the commit does not count")
    BackgroundCheck([one]).wait()
    check = BackgroundCheck([one, other])
    (tmp_path / "b").unlink()  # as a newer commit does
    check.wait()
    check.wait()


@pytest.mark.parametrize("place", [0, AT_ONCE // 2, len(LARGE) - 1])
def test_damage_of_a_large_file_reaches_all_who_wait(tmp_path: Path, place: int) -> None:
    other = expected(tmp_path / "b", LARGE)
    changed = bytearray(LARGE)
    changed[place] ^= 1
    (tmp_path / "b").write_bytes(changed)
    check = BackgroundCheck([other])
    with ThreadPoolExecutor(4) as pool:
        errors = [pool.submit(check.wait).exception() for _ in range(8)]
    assert all(isinstance(error, UserError) and "b: damaged (wrong checksum)" in str(error) for error in errors)


def test_a_file_cut_short_is_damaged(tmp_path: Path) -> None:
    other = expected(tmp_path / "b", LARGE)
    (tmp_path / "b").write_bytes(LARGE[:-1])
    with pytest.raises(UserError, match="wrong checksum"):
        BackgroundCheck([other]).wait()


def test_small_or_missing_files_are_noticed_at_once(tmp_path: Path) -> None:
    small = expected(tmp_path / "a", b"small")
    with pytest.raises(FileNotFoundError):
        BackgroundCheck([small, small._replace(path=tmp_path / "none")])
    with pytest.raises(UserError, match="wrong checksum"):
        BackgroundCheck([small._replace(crc=1)])
