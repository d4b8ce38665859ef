"""Dates and times as people write them, compared as what they mean: the same moment in any zone, days as a whole."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import NamedTuple

__all__ = ["Moment", "parse_moment"]

WRITTEN = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r" ?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?)?)?",
    re.ASCII,
)
EPOCH = date(1970, 1, 1).toordinal()
DAY = 86_400


class Moment(NamedTuple):
    """A moment: seconds since 1970 in UTC, and nanoseconds; `length` seconds of a day, month or year, 0 of a time."""

    seconds: int
    nanoseconds: int
    length: int


def parse_moment(text: str) -> Moment | None:
    """Read an ISO 8601 date ("2025", "2025-02", "2025-02-03") or a date and time; None for any other text.

    A time without a zone is read as UTC, and one without seconds as the full minute.

    >>> parse_moment("1970-01-01T01:00:00.5+01:00"), parse_moment("1970-01-02"), parse_moment("1970-01-32")
    (Moment(seconds=0, nanoseconds=500000000, length=0), Moment(seconds=86400, nanoseconds=0, length=86400), None)
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        return None
    part = {name: int(value) for name, value in found.groupdict("0").items() if name not in ("fraction", "zone")}
    try:
        first = date(part["year"], part["month"] or 1, part["day"] or 1)
    except ValueError:
        return None
    seconds = (first.toordinal() - EPOCH) * DAY
    if found["hour"] is None:
        return Moment(seconds, 0, _days(first, found) * DAY)
    zone = _zone_seconds(found["zone"])
    if zone is None or part["hour"] > 23 or part["minute"] > 59 or part["second"] > 59:
        return None
    seconds += part["hour"] * 3600 + part["minute"] * 60 + part["second"] - zone
    return Moment(seconds, int((found["fraction"] or "0").ljust(9, "0")), 0)


def _days(first: date, found: re.Match[str]) -> int:
    """Return how many days the date stands for that begins with this one."""
    if found["day"]:
        return 1
    if found["month"]:
        return ((first + timedelta(31)).replace(day=1) - first).days if first.month < 12 else 31
    return date(first.year, 12, 31).timetuple().tm_yday


def _zone_seconds(zone: str | None) -> int | None:
    """Return how far a zone is ahead of UTC; None for one that cannot be."""
    if zone is None or zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        return None
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
