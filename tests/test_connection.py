"""One blocking connection: whole calls, deadlines, big pipelines, subscriptions, lost peers."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from scripted import Peer, ScriptedServer

import client
from client import (
    CommandTimeout,
    ConnectError,
    Connection,
    ConnectionClosed,
    NoAuthError,
    Options,
    ProtocolError,
    ReplyError,
    UnexpectedReply,
    WrongPassError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer
    from servers import Wire


def open_connection(url: str, **options: Any) -> Connection:
    return Connection(Options.from_url(url, **options))


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_commands_and_replies(server: client.EmbeddedServer, protocol: int) -> None:
    with open_connection(server.url, protocol=protocol, client_name="me") as connection:
        assert connection.protocol == protocol
        assert connection.execute("SET", "k", b"\x00\xff") == b"OK"
        assert connection.execute("GET", "k") == b"\x00\xff"
        assert connection.execute("GET", "missing") is None
        assert connection.execute("CLIENT", "GETNAME") == b"me"
        assert connection.execute("CLIENT", "ID") == connection.id
        replies = connection.execute_many([("INCR", "n"), ("LPUSH", "n", 1), ("GET", "n")])
        assert (replies[0], replies[2]) == (1, b"1")
        assert replies[1].code == "WRONGTYPE"
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            connection.execute("LPUSH", "n", 1)
        assert connection.execute("PING") == b"PONG"
        assert connection.execute_many([]) == []


def test_unix_socket_database_and_encoding(server: client.EmbeddedServer) -> None:
    with open_connection(server.unix_url, db=3, encoding="utf-8") as connection:
        connection.execute("SET", "ключ", "значение")
        assert connection.execute("GET", "ключ") == "значение"
        assert "db=3" in connection.execute("CLIENT", "INFO") if server.version >= (7,) else True


def test_undecodable_reply_is_an_error_of_its_command_only(server: client.EmbeddedServer) -> None:
    with open_connection(server.url, encoding="utf-8") as connection:
        connection.execute("SET", "k", b"\xff")
        with pytest.raises(UnicodeDecodeError):
            connection.execute("GET", "k")
        assert connection.execute("PING") == "PONG"


def test_passwords(private_server: StartServer, protocol: int) -> None:
    server = private_server(password="hunter2")
    with open_connection(server.url, protocol=protocol) as connection:
        assert connection.execute("PING") == b"PONG"
    bare = f"redis://127.0.0.1:{server.port}"
    with pytest.raises(NoAuthError):
        open_connection(bare, protocol=protocol)
    with pytest.raises(WrongPassError) as caught:
        open_connection(bare, password="hunter3", protocol=protocol)
    assert "hunter3" not in str(caught.value)
    with open_connection(bare, username="default", password="hunter2") as connection:
        assert connection.execute("ACL", "WHOAMI") == b"default"


def test_user_without_hello_is_served_in_resp2(server: client.EmbeddedServer) -> None:
    with open_connection(server.url) as admin:
        admin.execute("ACL", "SETUSER", "old", "on", ">pw", "~*", "+@all", "-hello")
        try:
            # AUTH inside HELLO comes too early for the ACL to refuse; asked again it does.
            with open_connection(server.url, username="old", password="pw") as connection:
                assert connection.protocol in (2, 3)
                assert connection.execute("ACL", "WHOAMI") == b"old"
        finally:
            admin.execute("ACL", "DELUSER", "old")


def test_big_pipeline_does_not_block_both_sides(server: client.EmbeddedServer) -> None:
    # Far more than both kernels' buffers, in both directions: written whole before anything is
    # read, it would leave the server unable to answer and us unable to go on.
    value = bytes(100_000)
    commands = [("SET", "k", value), ("GET", "k")] * 200
    with open_connection(server.url) as connection:
        replies = connection.execute_many(commands)
    assert replies == [b"OK", value] * 200


def test_big_value(server: client.EmbeddedServer) -> None:
    value = bytes(range(256)) * 40_000
    with open_connection(server.url) as connection:
        connection.execute("SET", "k", value)
        assert connection.execute("GET", "k") == value


def test_subscribe_owes_no_reply_and_messages_come_as_pushes(
    server: client.EmbeddedServer, protocol: int, wire: Callable[[Any], Wire]
) -> None:
    with open_connection(server.url, protocol=protocol) as connection:
        assert connection.execute("SUBSCRIBE", "a", "b") == 2
        assert connection.execute("PING") == (b"PONG" if protocol == 3 else [b"pong", b""])
        connection.pushes.clear()
        assert connection.read_push(0) is None
        wire(server)("PUBLISH", "a", "news")
        push = connection.read_push(5)
        assert push is not None
        assert (push.kind, push) == ("message", [b"message", b"a", b"news"])
        assert connection.execute("UNSUBSCRIBE") == 0
        assert connection.execute("PING") == b"PONG"


def test_client_tracking_family(server: client.EmbeddedServer) -> None:
    with open_connection(server.url, protocol=3) as connection:
        assert connection.execute("CLIENT", "GETREDIR") == -1
        connection.execute(*client.Tracking(optin=True, noloop=True).command())
        assert connection.execute("CLIENT", "GETREDIR") == 0
        connection.execute("CLIENT", "CACHING", "YES")
        if server.version >= (6, 2):
            info = connection.execute("CLIENT", "TRACKINGINFO")
            assert info[b"flags"] >= {b"on", b"optin", b"noloop"}
        with pytest.raises(ReplyError, match="ERR"):
            connection.execute("CLIENT", "CACHING", "NO")


def test_timeout_is_a_deadline_for_the_whole_call() -> None:
    def drip(peer: Peer) -> None:
        peer.greet()
        peer.command()
        for byte in b"$100\r\n" + bytes(100):
            peer.send(bytes([byte]))
            time.sleep(0.05)

    with ScriptedServer(drip) as server:
        connection = open_connection(server.url, timeout=0.5)
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="0 of 1 replies"):
            connection.execute("GET", "k")
        assert time.monotonic() - started < 3  # the drip alone would take 5
        assert connection.closed
        with pytest.raises(ConnectionClosed, match="is closed"):
            connection.execute("PING")


def test_timed_out_connection_is_never_used_again(server: client.EmbeddedServer) -> None:
    with open_connection(server.url, timeout=0.2) as connection:
        with pytest.raises(CommandTimeout):
            connection.execute("BLPOP", "nothing", 2)
        with pytest.raises(ConnectionClosed):
            connection.execute("PING")


def test_interrupted_call_closes_its_connection(
    server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = open_connection(server.url)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connection.roundtrip(("PING",))
    assert connection.closed


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"?what\r\n", ProtocolError),
        (b"$3\r\nabcde\r\n", ProtocolError),
        (b":1_0\r\n", ProtocolError),
        (b"$99999999999999\r\n", ProtocolError),
        (b"+ONE\r\n+TWO\r\n", UnexpectedReply),
        (b"+HALF", ConnectionClosed),
        (b"", ConnectionClosed),
    ],
)
def test_nonsense_closes_the_connection_with_its_name(
    answer: bytes, error: type[Exception]
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        peer.send(answer)

    with ScriptedServer(script) as server:
        connection = open_connection(server.url)
        with pytest.raises(error):
            connection.execute("GET", "k")
        assert connection.closed


def test_surplus_reply_is_not_taken_for_the_next_commands() -> None:
    late = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        peer.send(b"+ONE\r\n")
        late.wait(5)
        peer.send(b"+SURPLUS\r\n")
        peer.command()

    with ScriptedServer(script) as server:
        connection = open_connection(server.url)
        assert connection.execute("GET", "k") == b"ONE"
        late.set()
        with pytest.raises(UnexpectedReply):
            connection.read_push(5)  # waits until it has arrived
        assert connection.closed


def test_last_words_before_the_end_are_in_the_error() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        peer.send(b"-DENIED for hunter2\r\n")

    with ScriptedServer(script) as server:
        connection = open_connection(server.url, password="hunter2")
        with pytest.raises(ConnectionClosed, match=r"DENIED for \*\*\*'"):
            connection.execute_many([("PING",), ("PING",)])


def test_refused_connection_says_where() -> None:
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1:1: Connection refused"):
        open_connection("redis://:hunter2@127.0.0.1:1")
    with pytest.raises(ConnectionError, match="No such file"):
        open_connection("unix:///nonexistent/socket")


def test_flood_of_unread_pushes_costs_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client._connection._MAX_UNREAD_PUSHES", 100)

    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        while True:
            peer.send(b">2\r\n+message\r\n+hi\r\n" * 50)

    with ScriptedServer(script) as server:
        connection = open_connection(server.url)
        with pytest.raises(ConnectionClosed, match="pushed more than"):
            connection.execute("GET", "k")


def test_hello_unknown_falls_back(any_server: object) -> None:
    asked: list[Any] = []

    def script(peer: Peer) -> None:
        answers = {
            b"HELLO": b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, \r\n",
            b"AUTH": b"+OK\r\n",
            b"CLIENT": b":5\r\n",
            b"GET": b"$1\r\nv\r\n",
        }
        while (command := peer.command()) is not None:
            asked.append(command)
            peer.send(answers[command[0]])

    with (
        ScriptedServer(script) as server,
        open_connection(server.url, password="pw") as connection,
    ):
        assert (connection.protocol, connection.id) == (2, 5)
        assert connection.execute("GET", "k") == b"v"
    assert asked[1:3] == [[b"AUTH", b"pw"], [b"CLIENT", b"ID"]]


def test_error_of_a_command_with_a_secret_does_not_quote_it() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        peer.send(b"-ERR unknown command `AUTH`, with args beginning with: `hunter2`, \r\n")
        peer.command()

    with ScriptedServer(script) as server, open_connection(server.url) as connection:
        with pytest.raises(ReplyError, match=r"^ERR unknown command$") as caught:
            connection.execute("AUTH", "hunter2")
        assert "hunter2" not in str(caught.value)


def test_repr_names_peer_and_no_credentials(any_server: client.EmbeddedServer) -> None:
    with open_connection(any_server.url) as connection:
        assert repr(connection) == f"<Connection connection to 127.0.0.1:{any_server.port}, RESP3>"
    assert repr(connection).endswith("closed>")


def test_peer_that_takes_no_more_bytes_costs_the_connection() -> None:
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        over.wait(30)

    def fill(connection: Connection) -> None:
        while True:
            connection.start("ECHO", bytes(1_000_000))

    with ScriptedServer(script) as server:
        connection = open_connection(server.url)
        with pytest.raises(ConnectionClosed, match="takes no more bytes"):
            fill(connection)
        assert connection.closed
        over.set()


def test_nonsense_that_nobody_asked_for_closes_the_connection() -> None:
    late = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        late.wait(30)
        peer.send(b"?what\r\n")
        peer.command()

    with ScriptedServer(script) as server:
        connection = open_connection(server.url)
        late.set()
        with pytest.raises(ProtocolError):
            connection.read_push(10)
        assert connection.closed


def test_nonsense_behind_the_last_reply_costs_the_connection_and_not_the_reply() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        peer.send(b"+ONE\r\n?what\r\n")

    with ScriptedServer(script) as server:
        connection = open_connection(server.url)
        assert connection.roundtrip(("GET", "k")) == [b"ONE"]
        assert connection.closed
        with pytest.raises(ConnectionClosed, match="is closed"):
            connection.roundtrip(("GET", "k"))
        with pytest.raises(ProtocolError):
            open_connection(server.url).roundtrip(("GET", "k"), ("GET", "k"))


class Deaf(Connection):
    """Lets every push go."""

    def take_push(self, push: client.Push) -> None:
        pass


def test_reading_what_has_arrived_ends_although_the_peer_never_stops() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        while True:
            peer.send(b">2\r\n+message\r\n+hi\r\n" * 1000)

    def drain(connection: Connection) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:  # on a slow machine the flood may pause
            assert connection.drain() == []

    with ScriptedServer(script) as server:
        connection = Deaf(Options.from_url(server.url))
        connection.options = connection.options.replace(timeout=0.001)
        with pytest.raises(CommandTimeout, match="did not stop pushing"):
            drain(connection)
        assert connection.closed


def test_timeout_of_months_is_waited_for_in_pieces(any_server: client.EmbeddedServer) -> None:
    with open_connection(any_server.url, timeout=1e9) as connection:  # poll takes 24 days at most
        assert connection.execute("PING") == b"PONG"


def test_system_without_an_option_for_silence_does_without(
    any_server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with open_connection(any_server.url) as connection:
        connection.notice_silence()
        assert connection.execute("PING") == b"PONG"
    with open_connection(any_server.unix_url) as connection:
        connection.notice_silence()  # of the same machine there is no silence
        assert connection.execute("PING") == b"PONG"
