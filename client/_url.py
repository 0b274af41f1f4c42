"""Read the URL of a server; `Options` judges the values of its parts.

Refusals say what was expected and never repeat the URL: mistyped, it may show a password in any
of its parts.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_SENTINEL_PORT = 26379

_URL_FORMS = (
    "redis://[user[:password]@]host[:port][/db], rediss://… for TLS, "
    "unix://[user[:password]@]/path?db=0, "
    "or sentinel://[user[:password]@]host[:port][,host[:port]…]/service[/db], sentinels://… for TLS"
)


def read_url(url: str) -> dict[str, Any]:
    """Take a URL apart; its parts go on to `Options`, which judges their values."""
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    sentinels: tuple[tuple[str, int], ...] | None = ()
    scheme, mark, rest = url.partition("://")
    if mark and scheme.lower() in _OF_SENTINELS:
        # The standard library knows no list of hosts, so it is shown one host.
        rest, hosts = _without_hosts(rest)
        url, sentinels = f"{scheme}://{rest}", _read_hosts(hosts)
    parts = _split(url)
    if parts is None or sentinels is None:
        raise ValueError(
            f"expected {_URL_FORMS}; this URL can't be read "
            "(a password with reserved characters must be percent-encoded, in UTF-8)"
        )
    host, port = parts.hostname, parts.port
    if parts.scheme not in ("redis", "rediss", "unix", *_OF_SENTINELS):
        raise ValueError(f"expected {_URL_FORMS}; this URL has another scheme")
    if "@" in parts.path or "@" in parts.query or parts.fragment:
        raise ValueError(
            "an @ after the host, or a #: characters reserved in URLs must be percent-encoded "
            "in a user name, password or path"
        )
    found: dict[str, Any] = {}
    if parts.username:
        found["username"] = unquote(parts.username, errors="strict")
    if parts.password is not None:
        found["password"] = unquote(parts.password, errors="strict")
    if parts.scheme == "unix":
        if not parts.path or host:
            raise ValueError(f"expected {_URL_FORMS}; a unix URL has an absolute path and no host")
        found["unix_path"] = unquote(parts.path)
    elif sentinels:
        found["sentinels"] = sentinels
        service, *db = parts.path.strip("/").split("/")
        if not service or len(db) > 1:
            raise ValueError(f"expected {_URL_FORMS}; this URL's path names no service, or more")
        found["service"] = unquote(service)
        if db:
            found["db"] = _number("the path's second part, a database,", db[0], int)
    else:
        if host:
            found["host"] = unquote(host)
        if port is not None:
            found["port"] = port
        if parts.path.strip("/"):
            found["db"] = _number("the path, a database,", parts.path.strip("/"), int)
    if parts.scheme in ("rediss", "sentinels"):
        found["ssl"] = True
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _FROM_QUERY:
            raise ValueError(f"a URL's query may set {', '.join(_FROM_QUERY)}, and nothing else")
        kind = _FROM_QUERY[name]
        found[name] = text if kind is str else _number(f"{name} in the query", text, kind)
    return found


_OF_SENTINELS = ("sentinel", "sentinels")


def _without_hosts(rest: str) -> tuple[str, str]:
    """Put one host in the place of a list of hosts: what follows `://`, and the list."""
    authority = rest[: min([rest.find(mark) for mark in "/?#" if mark in rest] or [len(rest)])]
    user, at, hosts = authority.rpartition("@")
    return f"{user}{at}localhost{rest[len(authority) :]}", hosts


def _read_hosts(hosts: str) -> tuple[tuple[str, int], ...] | None:
    """Read `host[:port],…`; None if there is one that can't be read."""
    found = []
    for text in hosts.split(","):
        parts = _split(f"redis://{text}")
        if parts is None or not parts.hostname or parts.netloc != text or "@" in text:
            return None
        port = _SENTINEL_PORT if parts.port is None else parts.port
        found.append((unquote(parts.hostname), port))
    return tuple(found)


def _split(url: str) -> SplitResult | None:
    """Take a URL apart; None if it is none.

    The standard library's own messages quote it, password included. So they do not leave this
    function, not even as the context of another error.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # found wrong only when they are asked for
        for text in (parts.username, parts.password, parts.path):
            unquote(text or "", errors="strict")
    except ValueError:
        return None
    return parts


_FROM_QUERY: dict[str, type] = {
    "db": int,
    "protocol": int,
    "encoding": str,
    "client_name": str,
    "timeout": float,
    "connect_timeout": float,
}


def _number(where: str, text: str, kind: type) -> Any:
    # int() and float() take "1_0", " 1" and "+1", which nobody means in a URL.
    if not text.isascii() or not text.replace(".", "", 1 if kind is float else 0).isdigit():
        raise ValueError(f"{where} must be a number")
    return kind(text)
