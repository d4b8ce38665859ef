"""What the shards of an index have in common: their settings, and one record of all their commits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.index.commit import CommitRecord
from retriever.index.vectors.rows import RowMark
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.index.settings import IndexSettings
    from retriever.index.shards.manifest import ShardManifest

__all__ = ["check_alike", "joined_commits"]


def check_alike(path: Path, names: Sequence[str], settings: Sequence[IndexSettings]) -> IndexSettings:
    """Return the settings that all shards have; raise UserError that says in what one differs from the first."""
    first = settings[0]
    for name, other in zip(names, settings, strict=True):
        one, its = dataclasses.asdict(first), dataclasses.asdict(other)
        one["encoder"], its["encoder"] = first.encoder._asdict(), other.encoder._asdict()
        del one["encoder"]["name"], its["encoder"]["name"]  # where it is: the same weights may be elsewhere
        for key, value in one.items():
            if its[key] != value:
                shown = (_shown(first), _shown(other)) if key == "encoder" else (value, its[key])
                raise UserError(
                    f"{path / name}: was made with {key} {shown[1]}, {path / names[0]} with {shown[0]}; shards need "
                    "the same settings: index one of them again"
                )
    return first


def _shown(settings: IndexSettings) -> str:
    name, sha256, *_ = settings.encoder
    return f"{name} (sha256 {sha256[:12]})" if sha256 else name


def joined_commits(manifest: ShardManifest, commits: Sequence[CommitRecord]) -> CommitRecord:
    """Return what the commits of the shards say together; live_file is a digest of them, there is no such file."""
    said = [dataclasses.asdict(commit) for commit in commits]
    digest = hashlib.sha256(json.dumps([manifest.shards, said], sort_keys=True).encode()).hexdigest()
    kinds, choices = ({getattr(commit, name) for commit in commits} for name in ("dense_type", "dense_choice"))
    total = {name: sum(getattr(commit, name) for commit in commits) for name in ("documents", "empty", "truncated")}
    return CommitRecord(
        number=manifest.number + sum(commit.number for commit in commits),
        settings_crc=commits[0].settings_crc,
        mark=RowMark(rows=sum(commit.mark.rows for commit in commits)),
        live_file=f"sha256:{digest}",
        dense_type="+".join(sorted(kinds)),
        dense_choice="+".join(sorted(choices)),
        dense_rows=sum(commit.dense_rows for commit in commits),
        unread=sum(commit.unread for commit in commits),
        note=manifest.note,
        **total,
    )
