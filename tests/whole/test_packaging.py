from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE_DIR: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
LINKS = {"index": "../index", "eval": "../eval", "configs": "../configs"}
HEAVY = ("torch", "faiss", "jnius", "transformers", "numpy")
# Files that need not be there in a checkout, and must be in the wheel when they are.
DATA = ("configs/eval/probe.yaml", "retriever/assets/default-encoder/config.json")
PAGE_FILES = {".html", ".css", ".js", ".svg"}
NESTED_DATA = "retriever/assets/default-encoder/tokenizer/vocab.txt"


PROGRAM = """
from retriever import Document, FusionConfig, Hit, IndexingConfig, Retriever, build_index, evaluate


def session(folder: str) -> list[Hit]:
    documents = (Document(str(number), "the sea", metadata={"year": number}) for number in range(3))
    report = build_index(documents, folder, encoder="none", config=IndexingConfig(k1=1.2), progress=True)
    count: int = report.documents
    with Retriever.open(folder, fusion=FusionConfig(method="rrf")) as retriever:
        hits = retriever.search("sea", top_k=count, mode="bm25")
    score: float = hits[0].score
    mean: dict[str, float] = evaluate(folder)["bm25"].mean
    print(score, mean, hits[0].parts["bm25"].rank)
    return hits
"""


def run(*command: str | Path, folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def code_folders(root: Path) -> set[str]:
    """Return the folders of the project that hold an `__init__.py`, relative to `root`, links not followed."""
    tops = [root / name for name in ("retriever", "index", "eval", "configs")]
    return {path.parent.relative_to(root).as_posix() for top in tops for path in top.rglob("__init__.py")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project, so that building leaves nothing in the checkout, and add the files that may be missing."""
    folder = tmp_path_factory.mktemp("source") / "project"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    for name in ("retriever", "index", "eval", "configs"):
        ignore = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in (*DATA, NESTED_DATA):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    run("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, folder=source)
    (built,) = dist.glob("*.whl")
    return built


def test_the_wheel_holds_code_configurations_and_encoder_and_nothing_else(source: Path, wheel: Path) -> None:
    expected = {
        "retriever/py.typed",
        "retriever/configs/eval/probe.yaml",
        "retriever/eval/report/report.css",
        "retriever/index/lucene/java/Calls.class",
        "retriever/index/lucene/java/Calls.java",
        "retriever/index/lucene/java/CollectionSearcher.class",
        "retriever/index/lucene/java/CollectionSearcher.java",
        "retriever/index/lucene/java/Words.class",
        "retriever/index/lucene/java/Words.java",
        DATA[1],
        NESTED_DATA,
    }
    for package, folder in PACKAGE_DIR.items():
        pattern = "*.py" if package != "retriever.configs" else "**/*.yaml"
        for path in (source / folder).glob(pattern):
            expected.add(f"{package.replace('.', '/')}/{path.relative_to(source / folder).as_posix()}")
    page = source / "retriever" / "serve" / "page"
    expected |= {f"retriever/serve/page/{path.name}" for path in page.iterdir() if path.suffix in PAGE_FILES}
    names = set(zipfile.ZipFile(wheel).namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == expected
    assert {name.rpartition("/")[2] for name in info} >= {"METADATA", "LICENSE", "NOTICE", "entry_points.txt"}


SHOW = """
import importlib.util, json, sys
import retriever, retriever.index, retriever.eval
configs = importlib.util.find_spec("retriever.configs").submodule_search_locations[0]
tops = [name for name in ("index", "eval", "configs") if importlib.util.find_spec(name)]
print(json.dumps([retriever.__file__, retriever.index.__file__, retriever.eval.__file__, configs, tops]))
"""


def test_an_installed_wheel_brings_one_package(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run("-m", "pip", "install", wheel, "--no-deps", "--target", target, folder=tmp_path)
    assert {path.name for path in target.iterdir() if not path.name.endswith(".dist-info")} == {"retriever", "bin"}
    shown = json.loads(run("-I", "-c", f"import sys; sys.path.insert(0, {str(target)!r})\n{SHOW}", folder=tmp_path))
    package = target / "retriever"
    assert list(map(Path, shown[:3])) == [package / f"{name}__init__.py" for name in ("", "index/", "eval/")]
    assert (Path(shown[3]) / "eval" / "probe.yaml").is_file()
    assert shown[4] == []


@pytest.mark.slow
def test_a_program_outside_is_typed(wheel: Path, tmp_path: Path) -> None:
    """mypy, as strict as here, reads the installed wheel; the cache that `make lint` leaves saves 40 seconds."""
    (tmp_path / "right.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(PROGRAM.replace("top_k=count", "top_k=str(count)"))
    site = tmp_path / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    run("-m", "venv", "--without-pip", tmp_path / "venv", folder=tmp_path)
    zipfile.ZipFile(wheel).extractall(site)
    # The libraries of this environment, but not its editable installation.
    others = [path for path in sys.path if path.endswith("site-packages") and path != str(site)]
    (site / "others.pth").write_text("\n".join(others))
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / "cache")
    options = [
        "--config-file",
        ROOT / "pyproject.toml",
        "--cache-dir",
        "cache",
        "--python-executable",
        "venv/bin/python",
    ]
    command = [sys.executable, "-m", "mypy", *map(str, options), "right.py", "wrong.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1 and errors[0].startswith("wrong.py") and 'incompatible type "str"' in errors[0], errors


def test_an_editable_install_reads_the_checkout(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", target, "-e", source, folder=tmp_path)
    # -S keeps away another editable install of this environment; its libraries are added without it.
    paths = f"import site, sys; site.addsitedir({str(target)!r}); sys.path.append({sysconfig.get_path('purelib')!r})"
    code = f"{paths}\n{SHOW}"
    shown = json.loads(run("-I", "-S", "-c", code, folder=tmp_path))
    found = [Path(path).resolve() for path in shown[:4]]
    assert found == [
        *(source / folder / "__init__.py" for folder in ("retriever", "index", "eval")),
        source / "configs",
    ]
    assert shown[4] == []


def test_every_folder_of_code_is_packaged() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(PACKAGE_DIR)
    assert set(PACKAGE_DIR.values()) - {"configs"} == code_folders(ROOT)


def test_the_links_are_relative_and_lead_to_the_folders() -> None:
    for name, target in LINKS.items():
        link = ROOT / "retriever" / name
        assert link.is_symlink()
        assert link.readlink().as_posix() == target
        assert link.resolve() == ROOT / name
        assert link.is_dir()


@pytest.mark.parametrize(
    "code",
    ["import retriever", "from retriever.cli.main import cli; cli(['--help'], standalone_mode=False)"],
    ids=["import", "help"],
)
def test_import_and_help_load_nothing_heavy(code: str) -> None:
    loaded = run("-c", f"{code}\nimport sys; print('loaded:', *sys.modules)", folder=ROOT).rpartition("loaded:")[2]
    assert not set(loaded.split()).intersection(HEAVY)


def test_versions_are_pinned_without_paths_or_build_tags() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert pins["torch"] == "2.13.0"
    assert not {"pip", "setuptools", "wheel", PROJECT["project"]["name"]}.intersection(pins)
    assert not [line for line in lines if "@" in line or "/" in line or "+" in line]


def test_one_file_alone_imports_pyjnius() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for top in ("retriever", "index", "eval")
        for path in (ROOT / top).rglob("*.py")
        if re.search(r"^\s*(import|from) jnius", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {"index/lucene/jvm.py"}
