"""Where to connect and as whom: a URL and keywords, validated once, before anything is sent.

An `Options` is immutable and safe to print. Refusals name the option and what was expected of
it; they never repeat the URL or a value from it, because a mistyped URL may show a password in
any of its parts.
"""

from __future__ import annotations

from codecs import lookup, lookup_error
from collections.abc import Coroutine

from ._frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from ssl import SSLContext
    from typing import Any, Literal, Self, TypeAlias

    from ._metrics import Metrics
    from ._sentinel import Finder

Credentials: TypeAlias = "Callable[[], tuple[str | None, str]]"
"""Called for each connection that is made, for the user name, if there is one, and password."""

AsyncCredentials: TypeAlias = "Callable[[], Awaitable[tuple[str | None, str]]]"

_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_server_hostname")
_SENTINEL = ("sentinel_username", "sentinel_password")
_TEXTS_OR_NONE = (
    "unix_path", "username", "password", "encoding", "client_name", "service", *_SENTINEL, *_TLS,
)  # fmt: skip


class Options(Frozen):
    """Everything one connection needs to know.

    Attributes:
        host, port: the TCP address; unused with `unix_path`.
        unix_path: the path of a unix socket, or None for TCP.
        db: the database to SELECT, 0 or more.
        username, password: credentials; a password alone belongs to the user "default".
        protocol: 3, 2, or None for 3 with a fall-back to 2.
        encoding, errors: how replies become `str`; None leaves them `bytes`.
        client_name: what CLIENT SETNAME tells the server.
        timeout: seconds for one whole call, handshake included; None waits for ever.
        connect_timeout: seconds for the transport to come up.
        ssl: True for verified TLS, an `ssl.SSLContext` of one's own, or None for none.
        ssl_ca_certs: a file of the certificate authorities to trust instead of the system's.
        ssl_certfile, ssl_keyfile: our own certificate, and its key if that is another file.
        ssl_server_hostname: the name to verify and to send (SNI) in the place of `host`.
        max_bulk: the longest bulk reply that is accepted, in bytes.
        credentials: called for each connection that is made, for `(username or None, password)`.
        retries: how often a call is tried again where that is safe, see `connect`.
        max_idle: seconds after which an unused connection is not used again; None for no end.
        max_age: seconds after which a connection is replaced when it is idle; None for no end.
        metrics: told of every round trip, or None.
        sentinels: the `(host, port)` of each sentinel to ask for the server, instead of `host`
            and `port`; `ssl` is for them too.
        service: what the sentinels call the primary and its replicas ("mymaster").
        replica: whether one of the replicas is wanted instead of the primary.
        sentinel_username, sentinel_password: credentials for the sentinels themselves.
        finder: what a client's connections share that the sentinels lead; the client sets it.
    """

    __slots__ = (  # noqa: RUF023 - the order in which they are shown
        "host",
        "port",
        "unix_path",
        "db",
        "username",
        "password",
        "protocol",
        "encoding",
        "errors",
        "client_name",
        "timeout",
        "connect_timeout",
        "ssl",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_server_hostname",
        "max_bulk",
        "credentials",
        "retries",
        "max_idle",
        "max_age",
        "metrics",
        "sentinels",
        "service",
        "replica",
        "sentinel_username",
        "sentinel_password",
        "finder",
    )
    _hidden = frozenset(("password", "credentials", "metrics", "sentinel_password", "finder"))
    _uncounted = frozenset(("metrics", "finder"))

    host: str
    port: int
    unix_path: str | None
    db: int
    username: str | None
    password: str | None
    protocol: Literal[2, 3] | None
    encoding: str | None
    errors: str
    client_name: str | None
    timeout: float | None
    connect_timeout: float | None
    ssl: bool | SSLContext | None
    ssl_ca_certs: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_server_hostname: str | None
    max_bulk: int
    credentials: Credentials | AsyncCredentials | None
    retries: int
    max_idle: float | None
    max_age: float | None
    metrics: Metrics | None
    sentinels: tuple[tuple[str, int], ...]
    service: str | None
    replica: bool
    sentinel_username: str | None
    sentinel_password: str | None
    finder: Finder[Any] | None

    def __init__(
        self,
        *,
        host: str = "localhost",
        port: int = 6379,
        unix_path: str | None = None,
        db: int = 0,
        username: str | None = None,
        password: str | None = None,
        protocol: Literal[2, 3] | None = None,
        encoding: str | None = None,
        errors: str = "strict",
        client_name: str | None = None,
        timeout: float | None = 5.0,
        connect_timeout: float | None = 5.0,
        ssl: bool | SSLContext | None = None,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_server_hostname: str | None = None,
        # proto-max-bulk-len's default, redis.conf of 6.2 to 8.1.
        max_bulk: int = 512 * 1024 * 1024,
        credentials: Credentials | AsyncCredentials | None = None,
        retries: int = 3,
        max_idle: float | None = None,
        max_age: float | None = None,
        metrics: Metrics | None = None,
        sentinels: tuple[tuple[str, int], ...] = (),
        service: str | None = None,
        replica: bool = False,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        finder: Finder[Any] | None = None,
    ) -> None:
        """Take the options and refuse what makes no sense.

        Raises:
            ValueError: an option is out of its range or contradicts another.
            TypeError: an option is of the wrong type.
            LookupError: the encoding, or what `errors` names, is unknown.
        """
        given = locals()
        for name in self.__slots__:
            self._set(name, given[name])
        check_int("port", self.port, 1, 65535)
        check_int("db", self.db, 0, 2**31 - 1)
        check_int("max_bulk", self.max_bulk, 1, 2**63 - 1)
        check_int("retries", self.retries, 0, 1000)
        for name in ("host", "errors"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} takes a str, not {type(getattr(self, name)).__name__}")
        for name in _TEXTS_OR_NONE:
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise TypeError(f"{name} takes a str or None, not {type(value).__name__}")
        for name in ("timeout", "connect_timeout", "max_idle", "max_age"):
            check_seconds(name, getattr(self, name))
        if self.protocol is not None and (
            type(self.protocol) is not int or self.protocol not in (2, 3)
        ):
            raise ValueError(f"protocol is 2, 3 or None, not {self.protocol!r}")
        if self.username is not None and self.password is None:
            raise ValueError("a username needs a password as well (an empty one is a password)")
        if self.credentials is not None:
            if not callable(self.credentials):
                raise TypeError("credentials takes a function that returns (username, password)")
            if self.password is not None:
                raise ValueError("a password and a credentials function exclude each other")
        if not self.host and self.unix_path is None:
            raise ValueError("host is empty")
        if self.encoding is not None:
            lookup(self.encoding)
        lookup_error(self.errors)
        if self.client_name is not None and (
            not self.client_name or any(not "!" <= letter <= "~" for letter in self.client_name)
        ):
            # CLIENT SETNAME refuses anything outside the printable ASCII range, Redis 6.2 to 8.1.
            raise ValueError("client_name takes printable ASCII without spaces")
        if self.unix_path is not None and self.ssl:
            raise ValueError("TLS over a unix socket is not supported: drop ssl or the unix path")
        self._check_sentinels()
        self._check_tls()

    def _check_sentinels(self) -> None:
        if not isinstance(self.replica, bool):
            raise TypeError(f"replica takes a bool, not {type(self.replica).__name__}")
        given = ("service", "replica", *_SENTINEL)
        if not self.sentinels:
            for name in given:
                if getattr(self, name):
                    raise ValueError(f"{name} needs sentinels to ask: a sentinel:// URL")
            return
        for sentinel in self.sentinels:
            if not isinstance(sentinel, tuple) or len(sentinel) != 2:
                raise TypeError("sentinels takes tuples (host, port)")
            host, port = sentinel
            if not isinstance(host, str) or not host:
                raise ValueError("a sentinel's host is a str that is not empty")
            check_int("a sentinel's port", port, 1, 65535)
        self._set("sentinels", tuple(self.sentinels))
        if not self.service:
            raise ValueError("sentinels need service, the name that they know the primary by")
        if self.unix_path is not None:
            raise ValueError("sentinels and a unix socket exclude each other")
        if self.sentinel_username is not None and self.sentinel_password is None:
            raise ValueError("sentinel_username needs sentinel_password as well")

    def _check_tls(self) -> None:
        given = [name for name in _TLS if getattr(self, name) is not None]
        if not given:
            return
        if not self.ssl:
            raise ValueError(f"{given[0]} needs TLS: a rediss:// URL or ssl=True")
        if self.ssl is not True:
            if given != ["ssl_server_hostname"]:
                raise ValueError(f"{given[0]} and an SSLContext exclude each other: load it there")
            return
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile needs ssl_certfile as well")
        # Here, so that a bad file is found out before anything is sent.
        self._set("ssl", self._make_context())
        for name in _TLS[:3]:
            self._set(name, None)

    def _make_context(self) -> SSLContext:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ssl_ca_certs)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"ssl_ca_certs can't be used: {_why(error)}") from None
        if self.ssl_certfile is not None:
            try:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, _no_passphrase)
            except OSError as error:
                raise ValueError(
                    f"ssl_certfile or ssl_keyfile can't be used: {_why(error)}"
                ) from None
        return context

    def resolved(self) -> Self:
        """Ask for the credentials, and give these options with them.

        Raises:
            TypeError: the function returned something else than `(username or None, password)`.
        """
        if self.credentials is None:
            return self
        given = self.credentials()
        if isinstance(given, Coroutine):
            given.close()
            raise TypeError("only connect_async takes a coroutine function for credentials")
        return self.with_credentials(given)

    def with_credentials(self, given: object) -> Self:
        """Give these options with what a credentials function returned."""
        if (
            not isinstance(given, tuple)
            or len(given) != 2
            or not isinstance(given[0], str | None)
            or not isinstance(given[1], str)
        ):
            raise TypeError(
                "expected a tuple (username or None, password) from the credentials function"
            )
        return self.replace(username=given[0], password=given[1], credentials=None)

    @classmethod
    def from_url(cls, url: str, **keywords: Any) -> Self:
        """Read the options from a URL; a keyword that is given wins over the URL's part.

        Args:
            url: `redis://`, `rediss://`, `unix://`, `sentinel://` or `sentinels://`. Reserved
                characters in user names, passwords, services and paths are percent-encoded. The
                query may set `db`, `protocol`, `encoding`, `client_name`, `timeout` and
                `connect_timeout`.
            **keywords: any attribute of this class.

        Raises:
            ValueError: the URL or an option makes no sense.
            TypeError: a keyword is unknown or of the wrong type.
        """
        known = set(cls.__slots__) - {"finder"}
        unknown = sorted(set(keywords) - known)
        if unknown:
            raise TypeError(
                f"unknown option {unknown[0]!r}; options are {', '.join(sorted(known))}"
            )
        from ._url import read_url  # with what the standard library has for it: 7 ms of import

        found = read_url(url)
        if found.get("ssl") and keywords.get("ssl") is False:
            raise ValueError("the URL's scheme asks for TLS and ssl=False refuses it")
        found.update({name: value for name, value in keywords.items() if value is not None})
        # None is a value of its own for these: "no time-out".
        found.update(
            {n: None for n in ("timeout", "connect_timeout") if keywords.get(n, 0) is None}
        )
        return cls(**found)

    @property
    def address(self) -> str:
        """The peer, as messages show it: `host:port`, the socket's path, or what sentinels know."""
        if self.unix_path is not None:
            return self.unix_path
        if self.sentinels:
            return f"{'a replica' if self.replica else 'the primary'} of {self.service!r}"
        return show_address(self.host, self.port)


def show_address(host: str, port: int) -> str:
    """Give `host:port`, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _no_passphrase() -> str:
    """Stand in for OpenSSL's own question, which would wait at a terminal."""
    raise ValueError(
        "the key of ssl_certfile or ssl_keyfile has a passphrase: load it into an SSLContext"
    )


def _why(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def check_int(name: str, value: object, least: int, most: int) -> None:
    """Refuse what is no int from `least` to `most`, naming the option."""
    if type(value) is not int:
        raise TypeError(f"{name} takes an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} takes {least} to {most}, not {value}")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is neither None nor a positive, finite number of seconds."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} takes seconds or None, not {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} takes a positive, finite number of seconds, not {value}")
