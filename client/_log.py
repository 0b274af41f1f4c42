"""Logging under `client.…`, for an application that logs; quiet in one that does not.

`logging` is not imported for this: who has not imported it has configured no handler either.
Nothing that is logged holds an argument of a command or a credential.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

DEBUG, INFO, WARNING = 10, 20, 30  # as `logging` has them

_prepared: ModuleType | None = None


def log(level: int, name: str, message: str, *args: object) -> None:
    """Log a message under `client.<name>`; `args` are put into it only if somebody listens."""
    global _prepared  # noqa: PLW0603 - once for a process
    logging = sys.modules.get("logging")
    if logging is None:
        return
    if _prepared is not logging:
        # Without a handler of the application's, warnings would go to stderr.
        logging.getLogger("client").addHandler(logging.NullHandler())
        _prepared = logging
    logging.getLogger(f"client.{name}").log(level, message, *args)
