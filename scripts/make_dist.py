"""Build the sdist and one wheel for each Python, and show that they work where they should.

    python scripts/make_dist.py [--out dist] [PYTHON ...]

Without names, every Python 3.11 or newer that is found, one of each version. Wheels are built from
the sdist, not from the tree: what it lacks would be missed. Then, in fresh environments and with a
compiler that fails:

- each wheel installs, and runs compiled;
- the sdist installs without a word, and runs pure;
- with RESP_EXTENSION=yes it says what is missing, and installs nothing;
- with RESP_EXTENSION=no it is pure even where there is a compiler.

Needs the package `build` here; the Pythons need nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parent.parent
TWINS = ("_parser", "_encoder")
# What the build is made of, and no user needs.
SOURCES = (".pyx", ".pxd", ".h", ".c")
# With debugging symbols it would be three times this.
LARGEST_TWIN = 400_000

PROBE = """
import json, sys
print(json.dumps([*sys.version_info[:2], sys.executable, sys.version_info.releaselevel]))
"""
SESSION = """
import resp, resp.hiredis, client
parser = resp.Parser(encoding="utf-8")
values = parser.feed_all(b"%1\\r\\n+a\\r\\n,1.5\\r\\n>1\\r\\n+news\\r\\n$2\\r\\nh")
assert values == [{"a": 1.5}, ["news"]], values
assert parser.feed_all(b"i\\r\\n") == ["hi"]
assert resp.encode_commands([("SET", "k", 1), ("GET", b"k")]).count(b"\\r\\n") == 12
assert callable(client.connect)
print(resp.implementation, resp.__file__)
"""


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Build the sdist and wheels, and check them.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    options = parser.parse_args()
    pythons = options.pythons or found_pythons()
    out = options.out.resolve()
    if out.exists():
        shutil.rmtree(out)

    run([sys.executable, "-m", "build", "--sdist", "--outdir", str(out), str(ROOT)])
    [sdist] = out.glob("*.tar.gz")
    check_sdist(sdist)
    for python in pythons:
        before = set(out.glob("*.whl"))
        # The wheel of an earlier sdist of that name must not stand in for it.
        run([*pip(python), "wheel", "--no-deps", "--no-cache-dir", "-w", str(out), str(sdist)], yes)
        [wheel] = set(out.glob("*.whl")) - before
        check_wheel(wheel)
        with environment(python) as there:
            there.install(wheel, no_compiler)
            there.expect("cython", f"{wheel.name}, no compiler")
    check_builds(pythons[0], sdist)
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:9,} {path.name}")
    return 0


# What the compiler and the build are told.
yes = {"RESP_EXTENSION": "yes"}
no = {"RESP_EXTENSION": "no"}
no_compiler = {"CC": "false", "CXX": "false"}


def check_builds(python: str, sdist: Path) -> None:
    """Build the sdist where that must fail, or make less of it."""
    with environment(python) as there:
        there.install("setuptools>=77", {}, isolated=True)
        there.install("cython>=3.1", {}, isolated=True)
        for how in (no_compiler, no):
            there.install(sdist, how)
            there.expect("python", f"{sdist.name}, {shown(how)}")
        there.remove()
        for how, words in (
            (yes | no_compiler, "RESP_EXTENSION=yes, but resp._speedups._parser was not built"),
            ({"RESP_EXTENSION": "perhaps"}, "RESP_EXTENSION is yes, no or empty, not 'perhaps'"),
        ):
            said = there.install(sdist, how, fails=True)
            if words not in said:
                fail(f"expected {words!r} of a build with {how}, found:\n{said}")
            there.expect(None, f"{sdist.name}, {shown(how)}")


class environment:  # noqa: N801  # it is used as a statement
    """A virtual environment without a pip of its own, for as long as it is entered."""

    def __init__(self, python: str) -> None:
        self.base = python

    def __enter__(self) -> environment:
        self.directory = tempfile.TemporaryDirectory()
        run([self.base, "-m", "venv", "--without-pip", self.directory.name])
        self.python = str(Path(self.directory.name, "bin", "python"))
        return self

    def __exit__(self, *_: object) -> None:
        self.directory.cleanup()

    def install(
        self,
        what: Path | str,
        how: dict[str, str],
        *,
        isolated: bool = False,
        fails: bool = False,
    ) -> str:
        """Install, with more in the environment; return what was said, if it had to fail."""
        command = [*pip(self.python), "install", "--no-deps", "--force-reinstall"]
        if not isolated:
            command += ["--no-cache-dir", "--no-build-isolation"]
        return run([*command, str(what)], how, fails=fails)

    def remove(self) -> None:
        """Uninstall the package."""
        run([*pip(self.python), "uninstall", "--yes", "resp-client"])

    def expect(self, implementation: str | None, what: str) -> None:
        """Run a session on what was installed, which is this implementation, or nothing."""
        # From elsewhere: here Python would find the sources first.
        said = run([self.python, "-c", SESSION], fails=implementation is None, cwd="/")
        if implementation is None:
            if "No module named 'resp'" not in said:
                fail(f"expected nothing to be installed, found:\n{said}")
        elif said.split()[0] != implementation:
            fail(f"expected the {implementation} implementation, found {said}")
        print(f"{what}: {implementation or 'refused'}", flush=True)


def check_sdist(path: Path) -> None:
    """See that it has all sources and nothing that is made of them."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {f"resp/_speedups/{twin}.pyx" for twin in TWINS}
    tracked |= {str(each.relative_to(ROOT)) for each in ROOT.glob("resp/_speedups/*.[ph]*")}
    tracked |= {str(each.relative_to(ROOT)) for each in ROOT.glob("tests/*.py")}
    tracked = {name for name in tracked if not name.endswith((".pyc", ".pyo"))}
    if tracked - names:
        fail(f"{path.name} lacks {sorted(tracked - names)}")
    made = {name for name in names if name.endswith((".c", ".so", ".pyc", ".pyd"))}
    if made:
        fail(f"{path.name} has what is made from its sources: {sorted(made)}")


def check_wheel(path: Path) -> None:
    """See that it is compiled, and has nothing that only the build needs."""
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for twin in TWINS:
        built = [name for name in sizes if name.startswith(f"resp/_speedups/{twin}.cpython-")]
        if len(built) != 1:
            fail(f"expected one {twin} in {path.name}, found {built}")
        if sizes[built[0]] > LARGEST_TWIN:
            fail(f"{built[0]} has {sizes[built[0]]:,} bytes: debugging symbols?")
    left = [name for name in sizes if name.endswith(SOURCES)]
    if left or "resp/py.typed" not in sizes or "client/py.typed" not in sizes:
        fail(f"{path.name} has sources, or lacks py.typed: {left}")


def found_pythons() -> list[str]:
    """Return a Python of each version that is found, the lowest first."""
    names = [f"python3.{minor}" for minor in range(11, 20)] + ["python3", sys.executable]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    names += [str(path) for path in sorted(versions.glob("*/bin/python"))]
    found: dict[tuple[int, int], str] = {}
    for name in names:
        try:
            # A name on PATH may be a shim that runs nothing.
            said = subprocess.run([name, "-c", PROBE], capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        major, minor, executable, level = json.loads(said)
        if (major, minor) >= (3, 11) and level == "final":
            found.setdefault((major, minor), executable)
    return [found[version] for version in sorted(found)]


def pip(python: str) -> list[str]:
    """Return how to call this environment's pip on behalf of another."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]


def run(
    command: list[str],
    more: dict[str, str] | None = None,
    *,
    fails: bool = False,
    cwd: str | None = None,
) -> str:
    """Run a command, which must succeed, or must fail; return all it printed."""
    # What was asked of this program's own installation is not asked of these. A folder that all
    # builds share (DIST_EXTRA_CONFIG may name one) hands a build what an earlier one compiled.
    asked = ("RESP_", "PYTHONPATH", "DIST_EXTRA_CONFIG")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(asked)}
    done = subprocess.run(
        command,
        env=environ | (more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=cwd,
    )
    if (done.returncode != 0) != fails:
        found = f"exit status {done.returncode}"
        fail(f"{shown(more or {})} {' '.join(command)}: {found}\n{done.stdout}")
    return done.stdout


def shown(environ: dict[str, str]) -> str:
    """Return variables as a shell would take them."""
    return " ".join(f"{key}={value}" for key, value in environ.items())


def fail(message: str) -> NoReturn:
    """End the program: something is not as it must be."""
    raise SystemExit(message.strip())


if __name__ == "__main__":
    raise SystemExit(main())
