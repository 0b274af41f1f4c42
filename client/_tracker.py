"""What keeps the blocking client's cache right: the listener or the inline connection.

It arms a connection before the first cached read on it, ends what a connection has read when the
connection is gone, and proves on request that all announcements have been heard. Where the server
will not track it says so in the cache's `status`, and the client goes on uncached.
"""

from __future__ import annotations

import time

from ._cache import ALWAYS, Source
from ._errors import ConnectionClosed, TrackingRefused
from ._handshake import track
from ._listener import Channel, Listener
from ._log import WARNING, log
from ._resp import ProtocolError
from ._tracking import FRESHNESS, Tracking

# Seconds that a listener has to answer; if it does not, it is replaced, and tracking tried again.
_LAST_WORD = 1.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._cache import Cache
    from ._options import Options
    from ._pool import DataConnection
    from ._session import Trace


class Tracker:
    """Owns the channel of one client.

    Args:
        options, trace: of the listener's connection.
        tracking: how the server is asked to track.
        cache: the cache to keep right.

    Attributes:
        inline: whether the pushes come on the data connection, of which there is one then.
    """

    def __init__(
        self, options: Options, tracking: Tracking, cache: Cache, trace: Trace | None
    ) -> None:
        self.inline = tracking.listener == "inline"
        self._tracking = tracking = tracking.sound()
        self._cache = cache
        self._refused = False
        self._listener = None if self.inline else Listener(options, tracking, cache, trace)

    def begin(self, first: DataConnection) -> None:
        """Open the channel, or give up caching and say why in the cache's status."""
        try:
            self._tracking.check_protocol(first.protocol)
        except ValueError as error:
            self._give_up(str(error))
        else:
            self.arm(first)

    def _give_up(self, reason: str) -> None:
        log(WARNING, "tracking", "not caching: %s", reason)
        self._refused = True
        self.stop(reason, "reconnect")

    def arm(self, connection: DataConnection, deadline: float | None = None) -> int:
        """Have the server announce what this connection reads; give the channel's epoch or 0.

        `deadline` is a time of `time.monotonic()`, or None.
        """
        if self._refused:
            return 0
        listener = self._listener
        if listener is None:
            if not connection.epoch:
                started = self._cache.clock()
                try:
                    # In RESP2 the server would say OK and announce nothing.
                    self._tracking.check_protocol(connection.protocol)
                except ValueError as error:
                    self._cache.close(str(error))
                    return 0
                if self._track(connection, None, deadline):
                    connection.epoch = self._cache.open(FRESHNESS, started)
            return connection.epoch
        channel = listener.channel
        if channel is None:
            try:
                listener.start()  # does nothing while its thread runs
            except TrackingRefused as error:
                if error.for_now:
                    self._cache.close(str(error))
                else:
                    self._give_up(str(error))
                return 0
            channel = listener.channel
        if channel is None:
            return 0
        if self._tracking.on_listener:
            connection.source = ALWAYS
            return channel.epoch
        if connection.epoch == channel.epoch and connection.source.alive:
            return channel.epoch
        if not self._track(connection, channel, deadline):
            return 0
        if not connection.source.alive:
            connection.source = Source()  # what it reads from now on is tracked again
        connection.epoch = channel.epoch
        listener.watch(connection, connection.source)
        return channel.epoch

    def _track(
        self, connection: DataConnection, channel: Channel | None, deadline: float | None
    ) -> bool:
        try:
            conversation = track(self._tracking, channel and channel.redirect)
            server = connection.converse(conversation, deadline)
        except TrackingRefused as error:
            if not error.for_now and self._is_final(channel):
                self._give_up(str(error))
            return False
        if channel is not None:
            if server != channel.server:
                # Redirected to a stranger who has that id on another server.
                self._cache.status = "on, but this address also leads to servers that it is off for"
                return False
            connection.notice_silence()
        return True

    def _is_final(self, channel: Channel | None) -> bool:
        """Tell a refusal to track from one to redirect to a listener that is gone.

        An id dies with its connection, and the server knows before we do.
        """
        listener = self._listener
        if listener is None:
            return True
        soon = time.monotonic() + _LAST_WORD
        return (
            listener.channel is channel and listener.barrier(soon) and listener.channel is channel
        )

    def lost(self, connection: DataConnection) -> None:
        """Serve no more what a connection has read: the server forgets it with the connection."""
        if self._listener is not None:
            self._listener.unwatch(connection)
        if not connection.epoch:
            return
        if self.inline:
            self._cache.close("connection lost", "connection lost")
        elif connection.source is not ALWAYS:
            self._cache.end(connection.source)

    def barrier(self, connection: DataConnection | None, deadline: float | None) -> bool:
        """Have all that was announced up to now reach the cache; False if it can't be known.

        Args:
            connection: the inline connection, where that is how it is done.
            deadline: a time of `time.monotonic()`, or None.
        """
        if self._listener is not None:
            return self._listener.barrier(deadline)
        if connection is None:
            return False
        started = self._cache.clock()
        try:
            connection.roundtrip((b"PING",), deadline=deadline)
        except (ConnectionClosed, ProtocolError):
            return False  # as of a listener; whoever sends on it next is told why
        self._cache.prove(started)
        return True

    def prove(self, started: float) -> None:
        """Note that a command sent after `started`, by the cache's clock, was answered inline."""
        if self.inline:
            self._cache.prove(started)

    def stop(self, reason: str, event: str) -> None:
        """Stop listening, and close the cache."""
        if self._listener is not None:
            self._listener.stop(reason, event)
        self._cache.close(reason, event)

    def after_fork(self) -> None:
        """Leave the parent's listener to the parent; the next read starts one of our own."""
        if self._listener is not None:
            self._listener.after_fork()
