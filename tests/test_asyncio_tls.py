"""The asyncio client over TLS: verified by default, with the suite's own certificate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from loops import at_once, on_loop
from test_tls import TlsProxy, authority, proxy, trusting

import client

if TYPE_CHECKING:
    import trustme

__all__ = ["authority", "proxy"]  # fixtures


@on_loop
async def test_tls(authority: trustme.CA, proxy: TlsProxy) -> None:
    url = f"rediss://localhost:{proxy.port}"
    async with client.connect_async(url, ssl=trusting(authority), cache=True) as db:
        value = bytes(range(256)) * 10_000
        await db.execute("SET", "k", value)
        assert await asyncio.gather(*(db.uncached("GET", "k") for _ in range(5))) == [value] * 5
        assert await db.execute("GET", "small") is None
        assert at_once(db.execute("GET", "small")) is None
    with pytest.raises(client.ConnectError, match="certificate verify failed"):
        await client.connect_async(url)
    with pytest.raises(client.ConnectError, match=r"127\.0\.0\.1"):
        await client.connect_async(f"rediss://127.0.0.1:{proxy.port}", ssl=trusting(authority))
