"""The server's refusals that callers tell apart, as classes by their code.

The codec gives every refusal as `ReplyError`; a client raises it, or puts it among the replies of
a pipeline, as the class of its code. Codes as of Redis 6.2 to 8 and Valkey 8; one that is not here
stays a `ReplyError`.
"""

from __future__ import annotations

from ._errors import NoAuthError, WrongPassError
from ._resp import ReplyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class WrongTypeError(ReplyError):
    """WRONGTYPE: the key holds another kind of value."""


class NoPermissionError(ReplyError):
    """NOPERM: the user's ACL does not allow the command, the key or the channel."""


class ReadOnlyError(ReplyError):
    """READONLY: a replica does not write; after a failover the primary may have become one."""


class LoadingError(ReplyError):
    """LOADING: the server is reading its data set and will be there soon."""


class OutOfMemoryError(ReplyError):
    """OOM: `maxmemory` is reached and nothing can be evicted."""


class BusyError(ReplyError):
    """BUSY: a script runs for longer than `busy-reply-threshold`."""


class MovedError(ReplyError):
    """MOVED: in a cluster, another node has the slot."""


class AskError(ReplyError):
    """ASK: in a cluster, another node is taking the slot over."""


class TryAgainError(ReplyError):
    """TRYAGAIN: in a cluster, the keys are on two nodes while their slot moves."""


class ClusterDownError(ReplyError):
    """CLUSTERDOWN: the cluster, or the slot, is not served."""


class CrossSlotError(ReplyError):
    """CROSSSLOT: the keys of the command are in different slots."""


class MasterDownError(ReplyError):
    """MASTERDOWN: a replica without its primary does not serve stale data."""


class MisconfiguredError(ReplyError):
    """MISCONF: writes are refused, because they can't be persisted."""


class NoReplicasError(ReplyError):
    """NOREPLICAS: fewer replicas are there than `min-replicas-to-write`."""


class NoScriptError(ReplyError):
    """NOSCRIPT: no script of this SHA1 is loaded."""


class ExecAbortError(ReplyError):
    """EXECABORT: a command of the transaction was refused, so none ran."""


class BusyKeyError(ReplyError):
    """BUSYKEY: RESTORE or COPY to a key that is there."""


class BusyGroupError(ReplyError):
    """BUSYGROUP: the consumer group exists."""


class NoGroupError(ReplyError):
    """NOGROUP: the stream or the consumer group does not exist."""


class UnblockedError(ReplyError):
    """UNBLOCKED: CLIENT UNBLOCK, or a failover, ended the wait."""


BY_CODE: dict[str, type[ReplyError]] = {
    "ASK": AskError,
    "BUSY": BusyError,
    "BUSYGROUP": BusyGroupError,
    "BUSYKEY": BusyKeyError,
    "CLUSTERDOWN": ClusterDownError,
    "CROSSSLOT": CrossSlotError,
    "EXECABORT": ExecAbortError,
    "LOADING": LoadingError,
    "MASTERDOWN": MasterDownError,
    "MISCONF": MisconfiguredError,
    "MOVED": MovedError,
    "NOAUTH": NoAuthError,
    "NOGROUP": NoGroupError,
    "NOPERM": NoPermissionError,
    "NOREPLICAS": NoReplicasError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "UNBLOCKED": UnblockedError,
    "WRONGPASS": WrongPassError,
    "WRONGTYPE": WrongTypeError,
}


def classed(reply: Any) -> Any:
    """Give an error as the class of its code; anything else as it is."""
    if type(reply) is ReplyError:
        kind = BY_CODE.get(reply.code)
        if kind is not None:
            return kind(str(reply))
    return reply


def class_errors(replies: list[Any]) -> list[Any]:
    """Give the errors among replies as the classes of their codes, in place."""
    if ReplyError in map(type, replies):
        replies[:] = map(classed, replies)
    return replies
