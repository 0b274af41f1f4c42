"""Which entry goes when the cache is full: SIEVE.

Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024. Entries stand in a queue in the order of
their arrival. A hit only leaves a mark on its entry, so a hit moves nothing and takes no lock. A
hand walks from the oldest entry to the newest: it spares a marked entry and takes its mark, and
evicts the first one without. The hand stays where it stopped.

The cache calls `add`, `remove` and `next_victim` and knows nothing else of the order; another
policy is another class with these three.
"""

from __future__ import annotations


class Node:
    """What an entry must have to stand in the queue. `hits` is all that a hit writes."""

    __slots__ = ("hits", "newer", "older", "spared")

    newer: Node | None
    older: Node | None
    hits: int
    spared: int
    """The value of `hits` when the hand last passed: more hits since then are the mark."""


class Sieve:
    """The queue and the hand. Not thread-safe: the cache holds its lock around each call."""

    __slots__ = ("_hand", "_newest", "_oldest")

    def __init__(self) -> None:
        self._newest: Node | None = None
        self._oldest: Node | None = None
        self._hand: Node | None = None

    def add(self, node: Node) -> None:
        """Let an entry join as the newest."""
        node.hits = node.spared = 0
        node.newer = None
        node.older = self._newest
        if self._newest is not None:
            self._newest.newer = node
        else:
            self._oldest = node
        self._newest = node

    def remove(self, node: Node) -> None:
        """Let an entry leave from wherever it stands."""
        newer, older = node.newer, node.older
        if self._hand is node:
            self._hand = newer
        if newer is None:
            self._newest = older
        else:
            newer.older = older
        if older is None:
            self._oldest = newer
        else:
            older.newer = newer
        node.newer = node.older = None

    def next_victim(self) -> Node | None:
        """Find the entry to evict, or None if the queue is empty. The caller removes it."""
        node = self._hand or self._oldest
        # Each step takes a mark or ends the walk: after one round without a new hit, nothing is
        # marked any more. Hits take no lock and may mark anew meanwhile; they lengthen the walk.
        while node is not None and node.hits != node.spared:
            node.spared = node.hits
            node = node.newer or self._oldest
        self._hand = node
        return node
