"""What `import resp` brings along: little, and nothing that could open anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import resp
from resp import pure

ROOT = Path(resp.__file__).parent.parent

LOADED = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import resp
after = set(sys.modules)
import json
print(json.dumps(sorted(after - before)))
"""
# Modules that open something, start something or take long to load.
UNWANTED = {"asyncio", "dataclasses", "enum", "inspect", "select", "selectors", "socket", "ssl"}
UNWANTED |= {"concurrent", "subprocess", "threading", "typing"}


def loaded() -> set[str]:
    command = [sys.executable, "-I", "-S", "-c", LOADED, str(ROOT)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_import_resp_loads_the_standard_library_at_most() -> None:
    names = {name.partition(".")[0] for name in loaded()}
    assert "resp" in names
    # The last is no file, but what modules made by Cython share.
    assert names - {"resp", "cython_runtime"} <= sys.stdlib_module_names
    assert not names & UNWANTED
    assert "re" not in names


def test_the_package_and_its_pure_twin_have_the_same_names() -> None:
    assert set(resp.__all__) == {*pure.__all__, "pure"}
    for name in pure.__all__:
        assert hasattr(resp, name)
        assert hasattr(pure, name)


def test_the_implementation_is_said() -> None:
    assert resp.implementation in {"python", "cython"}
    assert pure.implementation == "python"
