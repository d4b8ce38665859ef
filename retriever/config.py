"""YAML over dataclasses: defaults live in frozen dataclasses, a file overrides fields, an unknown key is an error."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from retriever.streams import open_binary
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from yaml import SafeLoader

__all__ = ["from_mapping", "load_yaml", "resolve"]

T = TypeVar("T")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; raise UserError naming the file otherwise."""
    import yaml

    path = Path(path)
    try:
        with open_binary(path) as file:
            values = yaml.load(file.read().decode("utf-8-sig"), _loader())
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file; give the path of a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # yaml raises any of these of a value that is none of its kind: 30 February, 5,000 digits, !!bool x.
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: found a {type(values).__name__}, need a mapping of settings to values")
    return values


@cache
def _loader() -> type[SafeLoader]:
    """Return YAML's safe loader, which takes the last of two values of a key without a word, but for that."""
    import yaml

    class Once(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"the setting {twice!r} stands twice; keep one of them")
            return super().construct_mapping(node, deep)

    return Once


def from_mapping(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """Build the dataclass `cls` from `values`; raise UserError that names `source` for an unknown key.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Settings:
    ...     depth: int = 10
    >>> from_mapping(Settings, {"depth": 5}, "here").depth
    5
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known), key=str)  # YAML has keys of any type
    if unknown:
        raise UserError(f"{source}: unknown setting {unknown[0]!r}; known settings: {', '.join(known)}")
    types = get_type_hints(cls)
    return cls(**{name: _checked(name, value, types[name], source) for name, value in values.items()})


def _checked(name: str, value: Any, wanted: Any, source: str) -> Any:
    """Return `value` if it is of the field's type; YAML's lists serve as tuples and its whole numbers as floats."""
    allowed = tuple(get_origin(option) or option for option in (get_args(wanted) if _is_union(wanted) else (wanted,)))
    if tuple in allowed and isinstance(value, list) and all(type(item) is int for item in value):
        value = tuple(value)  # of the dataclasses here, every tuple holds whole numbers
    if float in allowed and isinstance(value, int):
        allowed += (int,)
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        words = {NoneType: "null", tuple: "a list of whole numbers"}
        names = " or ".join(words.get(option, option.__name__) for option in allowed)
        raise UserError(f"{source}: {name} is {value!r}, need {names}")
    return value


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, UnionType)


def resolve(cls: type[T], path: str | Path | None = None, **overrides: Any) -> T:
    """Return `cls` with its defaults, overridden by the YAML file `path`, overridden by those `overrides` not None."""
    values = load_yaml(path) if path is not None else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    return from_mapping(cls, values, str(path) if path is not None else "settings")
