"""What pyproject.toml can't say: the compiled codec, built where that is possible.

RESP_EXTENSION=yes in the environment makes its absence an error, =no leaves it out; otherwise it is
built if there is a C compiler, and silently left out if not. RESP_DEBUG=1 compiles the assertions
in, and Cython's own count of references (which then needs Cython at run time, too).
"""

import os

from setuptools import Extension, setup

WANTED = os.environ.get("RESP_EXTENSION", "")
if WANTED not in ("", "yes", "no"):
    raise SystemExit(f"RESP_EXTENSION is yes, no or empty, not {WANTED!r}")
DEBUG = os.environ.get("RESP_DEBUG", "") not in ("", "0")

HEADERS = [
    *("_python.pxd", "_values.pxd"),
    *("_bytes.h", "_double.h", "_list.h", "_powers.h", "_text.h", "_types.h"),
]
if os.name == "nt":
    FLAGS = []
elif DEBUG:
    FLAGS = ["-g", "-O1", "-UNDEBUG", "-DCYTHON_REFNANNY=1"]
else:
    # Python's own flags have -g, which makes 600 KB of 150. -O3 and LTO gain nothing here.
    FLAGS = ["-g0", "-O2"]


def extension(name: str) -> Extension:
    """Return a module of the compiled codec; build_ext translates the .pyx."""
    return Extension(
        f"resp._speedups.{name}",
        [f"resp/_speedups/{name}.pyx"],
        depends=[f"resp/_speedups/{header}" for header in HEADERS],
        include_dirs=["resp/_speedups"],
        extra_compile_args=FLAGS,
        optional=WANTED != "yes",
    )


setup(
    ext_modules=[] if WANTED == "no" else [extension("_parser"), extension("_encoder")],
    # The C that Cython writes is nobody's to read or ship.
    options={"build_ext": {"cython_c_in_temp": True}},
)
