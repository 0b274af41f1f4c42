"""What a client counts and logs, and the exporters on their own libraries."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from readers import wait_until

import client
from client import prometheus
from client._metrics import BUCKETS
from client.opentelemetry import OpenTelemetryMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer
    from servers import Wire

    from client import EmbeddedServer


def act(db: client.Client) -> None:
    db.execute("SET", "k", "v")
    db.execute("GET", "k")
    db.execute("GET", "k")
    db.execute_many([("GET", "k"), ("NOBODYKNOWSTHIS", "secret"), ("HGET", "k", "f")])


def test_metrics_count_what_was_sent(any_server: EmbeddedServer) -> None:
    metrics = client.Metrics()
    with client.connect(any_server.url, cache=True, metrics=metrics) as db:
        before = metrics.snapshot()
        act(db)
        after = metrics.snapshot()
    counts = {
        name: count - before.commands.get(name, 0)
        for name, count in after.commands.items()
        if count != before.commands.get(name, 0) and name != "ping"
    }
    # The second GET was a hit: nothing was sent.
    assert counts == {"set": 1, "get": 2, "other": 1, "hget": 1}
    assert after.errors == {"ERR": 1, "WRONGTYPE": 1}
    assert after.latencies["set"].total == 1
    assert 0 < after.latencies["pipeline"].seconds < sum(BUCKETS)
    assert after.connects == 2  # data and listener
    assert after.bytes_sent > before.bytes_sent
    assert after.bytes_received > before.bytes_received
    assert "secret" not in repr(after)


def test_metrics_count_losses(any_server: EmbeddedServer) -> None:
    metrics = client.Metrics()
    with client.connect(any_server.url, metrics=metrics, timeout=0.2) as db:
        db.execute("CLIENT", "PAUSE", 500, "WRITE")
        with pytest.raises(client.CommandTimeout):
            db.execute("SET", "k", "v")
    assert metrics.snapshot().losses == {"CommandTimeout": 1}
    assert metrics.snapshot().failures == {"CommandTimeout": 1}


def test_metrics_of_the_asyncio_client(any_server: EmbeddedServer) -> None:
    metrics = client.Metrics()

    async def run() -> None:
        async with client.connect_async(any_server.url, metrics=metrics) as db:
            await db.execute("SET", "k", "v")
            await db.execute_many([("GET", "k"), ("HGET", "k", "f")])
            call = asyncio.ensure_future(db.execute("INCR", "n"))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.sleep(0.05)

    asyncio.run(run())
    seen = metrics.snapshot()
    assert {name: seen.commands[name] for name in ("set", "get", "hget", "incr")} == {
        "set": 1,
        "get": 1,
        "hget": 1,
        "incr": 1,
    }
    assert seen.errors == {"WRONGTYPE": 1}
    assert seen.failures == {"CancelledError": 1}
    assert seen.connects == 1
    assert seen.bytes_sent > 100
    assert seen.bytes_received > 20


def test_metrics_of_the_asyncio_client_count_losses(
    any_server: EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    metrics = client.Metrics()

    async def run() -> None:
        async with client.connect_async(any_server.url, metrics=metrics) as db:
            wire(any_server)("CLIENT", "KILL", "ID", str(db.id))
            assert await db.execute("GET", "k") is None

    asyncio.run(run())
    assert metrics.snapshot().losses == {"ConnectionClosed": 1}


def test_prometheus_shows_commands_latencies_and_the_cache(any_server: EmbeddedServer) -> None:
    metrics, registry = client.Metrics(), CollectorRegistry()
    with client.connect(any_server.url, cache=True, metrics=metrics) as db:
        prometheus.register(metrics, db.cache, registry=registry)
        act(db)
        text = generate_latest(registry).decode()
    assert 'resp_client_commands_total{command="get"} 2.0' in text
    assert 'resp_client_error_replies_total{code="WRONGTYPE"} 1.0' in text
    assert 'resp_client_roundtrip_seconds_bucket{command="set",le="+Inf"} 1.0' in text
    assert "resp_client_cache_hits_total 1.0" in text
    assert "resp_client_cache_entries " in text


def test_opentelemetry_shows_commands_latencies_and_the_cache(any_server: EmbeddedServer) -> None:
    reader = InMemoryMetricReader()
    metrics = OpenTelemetryMetrics(MeterProvider([reader]))
    with client.connect(any_server.url, cache=True, metrics=metrics) as db:
        assert db.cache is not None
        metrics.observe_cache(db.cache)
        act(db)
        data: Any = reader.get_metrics_data()
    points: dict[str, list[Any]] = {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    operations = {
        point.attributes["db.operation.name"]: point.count
        for point in points["db.client.operation.duration"]
    }
    assert operations["set"] == 1
    assert operations["pipeline"] >= 1
    assert [point.value for point in points["resp_client.cache.hits"]] == [1]
    assert {point.attributes["network.io.direction"] for point in points["resp_client.io"]} == {
        "transmit",
        "receive",
    }


def test_opentelemetry_counts_losses_and_prometheus_does_without_a_cache(
    any_server: EmbeddedServer,
) -> None:
    reader, registry = InMemoryMetricReader(), CollectorRegistry()
    metrics = OpenTelemetryMetrics(MeterProvider([reader]))
    prometheus.register(metrics, registry=registry)
    with client.connect(any_server.url, metrics=metrics, timeout=0.2) as db:
        with pytest.raises(client.CommandTimeout):
            db._pool.take().execute("BLPOP", "nothing", 2)
        data: Any = reader.get_metrics_data()
    kinds = {
        (metric.name, point.attributes.get("error.type"))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    assert ("resp_client.connections", "CommandTimeout") in kinds
    assert ("db.client.operation.duration", "CommandTimeout") in kinds
    text = generate_latest(registry).decode()
    assert "resp_client_connections_total" in text
    assert "resp_client_cache" not in text


def test_connections_and_losses_are_logged_without_secrets(
    private_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_server(password="hunter2")
    caplog.set_level(logging.DEBUG, "client")
    with client.connect(server.url) as db:
        db.execute("PING")
        db.execute("CLIENT", "KILL", "ID", db.id or 0)
        assert db.execute("GET", "k") is None
    assert "connected to" in caplog.text
    assert {record.name.partition(".")[0] for record in caplog.records} == {"client"}
    assert "hunter2" not in caplog.text


def test_listener_that_is_lost_is_logged(
    any_server: EmbeddedServer,
    wire: Callable[[EmbeddedServer], Wire],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "client")
    with client.connect(any_server.url, protocol=2, cache=True) as db:
        wire(any_server)("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: "client.listener" in {record.name for record in caplog.records})
        assert db.cache is not None


def test_nothing_is_printed_by_default(any_server: EmbeddedServer) -> None:
    program = (
        "import logging, sys, client\n"
        "with client.connect(sys.argv[1], cache=True) as db:\n"
        "    with client.connect(sys.argv[1]) as other:\n"
        "        other.execute('CLIENT', 'KILL', 'TYPE', 'normal')\n"
        "    for _ in range(50):\n"
        "        db.execute('GET', 'k')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, any_server.url], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
