"""Soak: `python -m tests.soak --minutes 10 [--seed N] [--server valkey-8.1]`.

The time is shared by the servers that are found, or by those that are named.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import find_servers

from ._soak import soak


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--server", action="append", help="such as valkey-8.1; may be repeated")
    options = parser.parse_args()
    servers = [
        each for each in find_servers() if options.server is None or each.name in options.server
    ]
    if not servers:
        parser.error(f"no such server; there are {[each.name for each in find_servers()]}")
    seconds = options.minutes * 60
    faulthandler.dump_traceback_later(seconds * 2 + 300, exit=True)
    names = ", ".join(each.name for each in servers)
    print(f"seed {options.seed}, {options.minutes:g} minutes on {names}", flush=True)
    began = time.monotonic()
    soak(servers, seconds, options.seed, lambda line: print(line, flush=True))
    print(f"nothing found in {(time.monotonic() - began) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
