"""What pyproject.toml can't say: the compiled codec, built where that is possible.

RESP_EXTENSION=yes in the environment makes its absence an error, =no leaves it out; otherwise it is
built if there is a C compiler, and silently left out if not. RESP_DEBUG=1 compiles the assertions
in, RESP_DEBUG=2 Cython's own count of references as well (which then needs Cython at run time).
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

WANTED = os.environ.get("RESP_EXTENSION", "")
if WANTED not in ("", "yes", "no"):
    raise SystemExit(f"RESP_EXTENSION is yes, no or empty, not {WANTED!r}")
DEBUG = os.environ.get("RESP_DEBUG", "") or "0"
if DEBUG not in ("0", "1", "2"):
    raise SystemExit(f"RESP_DEBUG is 0, 1, 2 or empty, not {DEBUG!r}")
# It looks into lists and strings where only CPython has them so.
if sys.implementation.name != "cpython":
    if WANTED == "yes":
        raise SystemExit(f"RESP_EXTENSION=yes, but this is {sys.implementation.name}, not cpython")
    WANTED = "no"

HEADERS = [
    *("_python.pxd", "_values.pxd"),
    *("_bytes.h", "_double.h", "_list.h", "_powers.h", "_text.h", "_types.h"),
]
if os.name == "nt":
    FLAGS = []
elif DEBUG != "0":
    FLAGS = ["-g", "-O1", "-UNDEBUG", *(["-DCYTHON_REFNANNY=1"] if DEBUG == "2" else [])]
else:
    # Python's own flags have -g, which makes 600 KB of 150. -O3 and LTO gain nothing here.
    FLAGS = ["-g0", "-O2"]


class BuildExtension(build_ext):
    """Leave nothing of what failed; say why where that is not passed over in silence."""

    def build_extension(self, ext: Extension) -> None:
        """Build it; if it is required, in the end of a long log stands what for."""
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError) as error:
            # What was built of older sources must not stand in for it.
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            if WANTED == "yes":
                message = f"RESP_EXTENSION=yes, but {ext.name} was not built: {error}"
                raise SystemExit(message) from error
            raise


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
    cmdclass={"build_ext": BuildExtension},
    # The C that Cython writes is nobody's to read or ship.
    options={"build_ext": {"cython_c_in_temp": True}},
)
