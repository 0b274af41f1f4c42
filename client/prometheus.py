"""Prometheus: a collector of a client's metrics, on `prometheus_client`.

    metrics = client.Metrics()
    db = client.connect(url, cache=True, metrics=metrics)
    client.prometheus.register(metrics, db.cache)

`pip install resp-client[prometheus]` brings the library.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from ._cache import Cache
from ._metrics import BUCKETS, CACHE_COUNTS, CACHE_GAUGES, Metrics


def register(
    metrics: Metrics,
    cache: Cache | None = None,
    *,
    prefix: str = "resp_client",
    registry: CollectorRegistry = REGISTRY,
) -> Collector:
    """Have a registry collect a client's metrics; give the collector, to unregister it.

    Args:
        metrics: what was given to `connect`.
        cache: the client's cache, if it has one.
        prefix: of the names.
        registry: where to.
    """
    collector = _Collector(metrics, cache, prefix)
    registry.register(collector)
    return collector


class _Collector(Collector):
    def __init__(self, metrics: Metrics, cache: Cache | None, prefix: str) -> None:
        self._metrics = metrics
        self._cache = cache
        self._prefix = prefix

    def collect(self) -> Iterator[Metric]:
        seen, prefix = self._metrics.snapshot(), self._prefix
        for what, label, counts, text in (
            ("commands", "command", seen.commands, "Commands that were sent."),
            ("failures", "error", seen.failures, "Round trips without a reply."),
            ("error_replies", "code", seen.errors, "Error replies."),
            ("connections_lost", "error", seen.losses, "Connections that were lost."),
        ):
            family = CounterMetricFamily(f"{prefix}_{what}", text, labels=[label])
            for name, count in counts.items():
                family.add_metric([name], count)
            yield family
        latency = HistogramMetricFamily(
            f"{prefix}_roundtrip_seconds", "How long round trips took.", labels=["command"]
        )
        for name, taken in seen.latencies.items():
            total, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), taken.buckets, strict=True):
                total += count
                buckets.append((bound, total))
            latency.add_metric([name], buckets, taken.seconds)
        yield latency
        for what, value, text in (
            ("sent_bytes", seen.bytes_sent, "Bytes sent."),
            ("received_bytes", seen.bytes_received, "Bytes received."),
            ("connections", seen.connects, "Connections that were made."),
        ):
            yield CounterMetricFamily(f"{prefix}_{what}", text, value=value)
        if self._cache is not None:
            yield from self._collect_cache(self._cache)

    def _collect_cache(self, cache: Cache) -> Iterator[Metric]:
        stats = cache.stats
        for name in CACHE_COUNTS:
            yield CounterMetricFamily(
                f"{self._prefix}_cache_{name}", f"Cache: {name}.", value=getattr(stats, name)
            )
        for name in CACHE_GAUGES:
            yield GaugeMetricFamily(
                f"{self._prefix}_cache_{name}", f"Cache: {name} held.", value=getattr(stats, name)
            )
