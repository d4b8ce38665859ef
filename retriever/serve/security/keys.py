"""API keys: from a file or the environment, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from retriever.streams import open_binary
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Key", "Keys", "Scope", "presented", "read_keys"]

Scope: TypeAlias = Literal["read", "write"]
SCOPES = ("read", "write")
SHORTEST = 16
"""Characters: what is shorter can be guessed."""
VARIABLES = {"read": "RETRIEVER_READ_KEYS", "write": "RETRIEVER_WRITE_KEYS"}


class Key(NamedTuple):
    """What the server keeps of a key: its SHA-256, and what it allows; "write" allows reading, too."""

    digest: bytes
    scope: Scope

    @property
    def label(self) -> str:
        """Return what the log calls the key: enough to tell keys apart, and no use to a reader."""
        return self.digest.hex()[:8]


class Keys(tuple[Key, ...]):
    """The keys that a server knows; false where there are none."""

    __slots__ = ()

    def find(self, secret: str) -> Key | None:
        """Return the key of this secret. All are compared, so the time that it takes tells nothing."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for key in self:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def presented(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the secret of `Authorization: Bearer SECRET` or `X-API-Key: SECRET`; None without either, or with two."""
    secrets = []
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name == b"authorization" and text[:7].lower() == "bearer ":
            secrets.append(text[7:].strip())
        elif name == b"x-api-key":
            secrets.append(text)
    return secrets[0] if len(secrets) == 1 else None


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """Return the keys of a file and of RETRIEVER_READ_KEYS and RETRIEVER_WRITE_KEYS, which hold them between commas.

    file: a line for each key, "read SECRET" or "write SECRET"; empty lines and those that begin with # are passed over.

    Raises:
        UserError: the file cannot be read, or a key is too short or without a scope.
    """
    found: dict[bytes, Key] = {}
    for place, scope, secret in [*_of_file(file), *_of_environment(environment)]:
        if scope not in SCOPES:
            raise UserError(f"{place}: no key that is used so; write read SECRET or write SECRET on each line")
        if len(secret) < SHORTEST:
            raise UserError(
                f"{place}: the key has {len(secret)} characters, need {SHORTEST} or more; "
                "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
            )
        digest = hashlib.sha256(secret.encode("utf-8")).digest()
        if digest not in found or scope == "write":
            found[digest] = Key(digest, "write" if scope == "write" else "read")
    return Keys(found.values())


def _of_file(file: Path | None) -> list[tuple[str, str, str]]:
    """Return place, scope and secret of each line; no message ever repeats a line, which may hold a secret."""
    if file is None:
        return []
    try:
        with open_binary(file) as stream:
            lines = stream.read().decode("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a file of keys") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; write read SECRET or write SECRET on each line") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            scope, _, secret = line.strip().partition(" ")
            found.append((f"{file}:{number}", scope, secret.strip()))
    if not found:
        raise UserError(f"{file}: holds no key; write read SECRET or write SECRET on each line")
    return found


def _of_environment(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [
        (name, scope, secret.strip())
        for scope, name in VARIABLES.items()
        for secret in environment.get(name, "").split(",")
        if secret.strip()
    ]
