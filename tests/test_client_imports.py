"""What `import client` loads, and that both packages work vendored as they are."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import client
import resp


def run(program: str, *path: Path) -> str:
    setup = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}\n"
    result = subprocess.run(
        [sys.executable, "-c", setup + program],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


ROOT = Path(client.__file__).parent.parent

LOADED = """
before = set(sys.modules)
import client
print(*sorted(name for name in set(sys.modules) - before))
"""


def test_import_loads_neither_tls_nor_an_event_loop() -> None:
    loaded = set(run(LOADED, ROOT).split())
    assert not loaded & {"ssl", "asyncio", "subprocess", "tempfile", "logging"}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the bound is CPython 3.11's")
def test_import_loads_few_modules() -> None:
    # What .pth files of this environment have loaded, an editable install's among them, is no
    # user's: a bare interpreter, and what it loads of its own to find packages.
    bare = [sys.executable, "-I", "-S", "-c"]
    program = f"import os, site, sys; sys.path.insert(0, {str(ROOT)!r})\n{LOADED}"
    loaded = subprocess.run([*bare, program], capture_output=True, text=True, check=True).stdout
    assert len(loaded.split()) <= 60  # redis-py 8.1: 238


def test_import_loads_nothing_but_the_standard_library() -> None:
    top = {name.partition(".")[0] for name in run(LOADED, ROOT).split()}
    # A compiled module makes two more of itself, cython_runtime and _cython_VERSION.
    top = {name for name in top if not name.startswith(("cython_runtime", "_cython_"))}
    assert top - set(sys.stdlib_module_names) == {"client", "resp"}


@pytest.mark.parametrize("name", client.__all__)
def test_public_name_exists_and_is_documented(name: str) -> None:
    thing = getattr(client, name)
    if isinstance(thing, type) or inspect.isfunction(thing):
        assert thing.__doc__


def test_both_packages_work_vendored(tmp_path: Path) -> None:
    package = tmp_path / "app" / "vendor"
    for module in (client, resp):
        assert module.__file__ is not None
        source = Path(module.__file__).parent
        shutil.copytree(source, package / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    # A top-level resp is there as well, and must not be taken.
    printed = run(
        "import app.vendor.client as c, app.vendor.resp as r\n"
        "print(c.ReplyError is r.ReplyError, 'resp' in sys.modules, 'client' in sys.modules)",
        tmp_path,
    )
    assert printed.split() == ["True", "False", "False"]
