"""OpenTelemetry: a client's metrics as instruments of `opentelemetry-api`.

    metrics = client.opentelemetry.OpenTelemetryMetrics(meter_provider)
    db = client.connect(url, cache=True, metrics=metrics)
    metrics.observe_cache(db.cache)

`pip install resp-client[opentelemetry]` brings the API; what exports is the application's choice.
Names and attributes are those of the semantic conventions for database clients, where there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from opentelemetry.metrics import (
    CallbackOptions,
    MeterProvider,
    Observation,
    get_meter_provider,
)

from ._cache import Cache
from ._metrics import BUCKETS, CACHE_COUNTS, CACHE_GAUGES, Metrics, name_of
from ._session import Word


class OpenTelemetryMetrics(Metrics):
    """Records each event in OpenTelemetry's instruments, and counts it as `Metrics` does.

    Args:
        provider: of the meter; the global one if not said.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        super().__init__()
        meter = (provider or get_meter_provider()).get_meter("resp-client")
        self._meter = meter
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._traffic = meter.create_counter(
            "resp_client.io", unit="By", description="Bytes sent and received."
        )
        self._errors_seen = meter.create_counter(
            "resp_client.error_replies", unit="{reply}", description="Error replies."
        )
        self._connections = meter.create_counter(
            "resp_client.connections", unit="{connection}", description="Connections made and lost."
        )

    def on_roundtrip(
        self, commands: Sequence[Sequence[Word]], seconds: float, failure: BaseException | None
    ) -> None:
        """See `Metrics`."""
        super().on_roundtrip(commands, seconds, failure)
        name = name_of(commands[0]) if len(commands) == 1 else "pipeline"
        attributes = {"db.system.name": "redis", "db.operation.name": name}
        if failure is not None:
            attributes["error.type"] = type(failure).__name__
        self._duration.record(seconds, attributes)

    def on_error(self, code: str) -> None:
        """See `Metrics`."""
        super().on_error(code)
        self._errors_seen.add(1, {"db.response.status_code": code})

    def on_bytes(self, sent: int, received: int) -> None:
        """See `Metrics`."""
        super().on_bytes(sent, received)
        if sent:
            self._traffic.add(sent, {"network.io.direction": "transmit"})
        if received:
            self._traffic.add(received, {"network.io.direction": "receive"})

    def on_connect(self) -> None:
        """See `Metrics`."""
        super().on_connect()
        self._connections.add(1, {"event": "made"})

    def on_loss(self, error: BaseException) -> None:
        """See `Metrics`."""
        super().on_loss(error)
        self._connections.add(1, {"event": "lost", "error.type": type(error).__name__})

    def observe_cache(self, cache: Cache) -> None:
        """Have the statistics of a cache observed as well."""

        def observe(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
            return lambda _: [Observation(getattr(cache.stats, name))]

        for name in CACHE_COUNTS:
            self._meter.create_observable_counter(
                f"resp_client.cache.{name}", callbacks=[observe(name)]
            )
        for name in CACHE_GAUGES:
            self._meter.create_observable_up_down_counter(
                f"resp_client.cache.{name}", callbacks=[observe(name)]
            )
