"""Settings from defaults, a YAML file and overrides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from retriever.config import from_mapping, load_yaml, resolve
from retriever.indexing.build import IndexingConfig
from retriever.network.upcycle import UpcycleConfig
from retriever.search.fusion.fusion import FusionConfig
from retriever.types import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Settings:
    depth: int = 10
    rate: float = 0.5
    name: str = "x"
    layers: tuple[int, ...] | None = None


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_file_over_defaults_and_overrides_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "depth: 3\nname: grün\n")
    assert resolve(Settings) == Settings()
    assert resolve(Settings, path) == Settings(3, 0.5, "grün")
    assert resolve(Settings, path, depth=7, name=None, rate=None) == Settings(7, 0.5, "grün")
    assert resolve(Settings, None, depth=0, name="") == Settings(0, 0.5, ""), "only None means not given"


@pytest.mark.parametrize("text", ["", "---\n", "# only a comment\n", "{}\n"])
def test_an_empty_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert resolve(Settings, write(tmp_path / "s.yaml", text)) == Settings()


def test_yaml_kinds_that_serve_as_others(tmp_path: Path) -> None:
    found = resolve(Settings, write(tmp_path / "s.yaml", "rate: 1\nlayers: [1, 3]\n"))
    assert found == Settings(rate=1, layers=(1, 3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("deepth: 3\n", "unknown setting 'deepth'; known settings: depth, rate, name, layers"),
        ("1: 2\ndepth: 3\nbad: 4\n", "unknown setting 1;"),
        ("- depth\n", "found a list"),
        ("depth\n", "found a str"),
        ("depth: [\n", "not valid YAML"),
        ("[1]: 2\n", "not valid YAML"),
        ("depth: many\n", "depth is 'many', need int"),
        ("depth: true\n", "depth is True, need int"),
        ("depth: null\n", "depth is None, need int"),
        ("rate: '0.5'\n", "rate is '0.5', need float"),
        ("layers: 3\n", "layers is 3, need a list of whole numbers"),
    ],
)
def test_wrong_settings_name_the_file(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "s.yaml", text)
    with pytest.raises(UserError) as caught:
        resolve(Settings, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and says in message and "\n" not in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: gr\xfcn\n")
    for path, says in ((tmp_path / "no.yaml", "no such"), (tmp_path, "directory"), (latin, "not valid YAML")):
        with pytest.raises(UserError, match=says) as caught:
            load_yaml(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_overrides_are_checked_too() -> None:
    with pytest.raises(UserError, match="settings: unknown setting 'deepth'"):
        resolve(Settings, deepth=3)


def test_fusion_settings() -> None:
    assert from_mapping(FusionConfig, {"method": "rrf", "weights": {"bm25": 1}}, "here").weights == {"bm25": 1}
    with pytest.raises(UserError, match="fusion method"):
        from_mapping(FusionConfig, {"method": "best"}, "here")


@pytest.mark.parametrize(
    ("file", "settings"), [("index/default.yaml", IndexingConfig()), ("encoder/default.yaml", UpcycleConfig())]
)
def test_a_committed_file_holds_every_setting_and_its_default(file: str, settings: Any) -> None:
    values = yaml.safe_load((CONFIGS / file).read_text(encoding="utf-8"))
    assert values == dataclasses.asdict(settings)
    assert list(values) == list(dataclasses.asdict(settings)), "in the order of the fields"
    assert resolve(type(settings), CONFIGS / file) == settings


@pytest.mark.parametrize("value", ["2025-02-30", "9" * 5000, "!!bool x", "!!timestamp x", "!!int ''", "[" * 3000])
def test_values_that_yaml_cannot_make_are_one_line(value: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"depth: {value}\n")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_yaml(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_setting_that_stands_twice_is_refused(tmp_path: Path) -> None:
    for text, key in (
        ("depth: 3\nrate: 1\ndepth: 4\n", "depth"),
        ("a: {b: 1, c: 2, b: 3}\n", "b"),
    ):
        path = write(tmp_path / "s.yaml", text)
        with pytest.raises(UserError, match=f"the setting '{key}' stands twice; keep one of them"):
            load_yaml(path)
    merged = load_yaml(write(tmp_path / "merged.yaml", "base: &x {q: 1, r: 2}\nown: {<<: *x, q: 3}\n"))
    assert merged["own"] == {"q": 3, "r": 2}
