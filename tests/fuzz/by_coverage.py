"""Let atheris choose the inputs of `test_inputs.py` by what code they reach, one kind of file after the other.

    python tests/fuzz/by_coverage.py 60 [KIND...]      # seconds for each; all kinds if none is named

An input that ends in anything but one line for the user is printed with its traceback, and kept in the working folder
as crash-*; the exit code is then 1. Only the modules of `retriever` are instrumented: all others would take minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def fuzz(name: str, seconds: int, inputs: Path) -> None:
    """Fuzz one kind in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=["retriever"]):
        import test_inputs  # type: ignore[import-not-found]  # beside this program

    [kind] = [kind for kind in test_inputs.KINDS if kind.name == name]
    for number, seed in enumerate((*kind.seeds, *test_inputs.STRANGE)):
        (inputs / str(number)).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        "-timeout=20",
        "-max_len=4096",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], str(inputs), *options], lambda content: test_inputs.try_kind(kind, content))
    atheris.Fuzz()


def main() -> None:
    """Fuzz each kind in a process of its own."""
    if sys.argv[1] == "one":
        with tempfile.TemporaryDirectory() as folder:
            fuzz(sys.argv[2], int(sys.argv[3]), Path(folder))
        return
    import test_inputs

    failed = []
    for name in sys.argv[2:] or [kind.name for kind in test_inputs.KINDS]:
        done = subprocess.run([sys.executable, __file__, "one", name, sys.argv[1]], capture_output=True, text=True)
        said = done.stderr.splitlines()
        executed = [line.split()[-1] for line in said if line.startswith("stat::number_of_executed_units")]
        print(f"{name}: {''.join(executed) or 'no'} inputs, exit code {done.returncode}", flush=True)  # noqa: T201
        if done.returncode:
            failed.append(name)
            print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)  # noqa: T201
    sys.exit(f"faults in {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
