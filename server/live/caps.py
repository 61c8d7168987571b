"""How many streams one key or one address may hold: counted when a stream opens, shows a key, and ends.

    it opens without a key    for its address, an IPv6 one with its /64, as requests without a key are
    it shows a key            for that key from then on, and for the address no longer
    it ends                   for nobody

A process knows what is held elsewhere from reports, by half a second late: gateways tell their engine what changed, and
are told who holds as much as may be. Source: DESIGN section 3 (Limits), D10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.live.admission import network_of
from server.metrics import Metrics

Holder = bytes
"""Whom a stream counts for: a byte that says what kind it is, then the network of an address or a digest."""
NOBODY: Final[Holder] = b""
KEY, ADDRESS = b"k", b"a"
KIND_NAMES: Final = {KEY: "key", ADDRESS: "address"}
DIGEST_BYTES: Final = 16
"""Of a key's digest: enough to tell any two apart."""


def of_key(key_hash: bytes) -> Holder:
    """Return whom a stream counts for that has shown a key."""
    return KEY + key_hash[:DIGEST_BYTES]


def of_address(address: str) -> Holder:
    """Return whom a stream counts for that has shown none."""
    return ADDRESS + network_of(address)


class Caps:
    """Streams by who holds them. per_key, per_address: the most of one, of those that this process holds.

    most_in_all: of one, of all processes together; the same unless an engine says otherwise.
    """

    def __init__(self, per_key: int, per_address: int, metrics: Metrics) -> None:
        self._most_here = {KEY: per_key, ADDRESS: per_address}
        self.most_in_all = dict(self._most_here)
        self._metrics = metrics
        self._here: dict[Holder, int] = {}
        self._elsewhere: dict[Holder, int] = {}
        self._full: set[Holder] = set()
        self.full_version = 0
        """Another number whenever `full` may answer something else."""
        self.changed: set[Holder] | None = None
        """Whose count here has changed, for whoever reports it and empties this; None where nobody does."""

    def most(self, holder: Holder) -> int:
        """Return how many streams a holder may have, here or in all, whichever is less."""
        kind = holder[:1]
        return min(self._most_here[kind], self.most_in_all[kind])

    def announced(self) -> dict[str, int]:
        """Return both limits by the names they are announced under."""
        return {f"sockets_per_{name}": self.most(kind) for kind, name in KIND_NAMES.items()}

    def refusal(self, holder: Holder) -> str | None:
        """Return why a holder may have no further stream, None when it may; a refusal is counted."""
        if not self._is_full(holder):
            return None
        name = KIND_NAMES[holder[:1]]
        self._metrics.sockets_refused.labels(name).inc()
        return f"no room for another stream of this {name}: {self.most(holder)} are open, as many as may be"

    def take(self, holder: Holder) -> None:
        """Count a stream that has opened, or has shown a key."""
        self._count(holder, 1)

    def give(self, holder: Holder) -> None:
        """Count one no longer: it has ended, or counts for somebody else now."""
        self._count(holder, -1)

    def here(self, holder: Holder) -> int:
        """Return how many streams of a holder this process has."""
        return self._here.get(holder, 0)

    def holders(self) -> list[Holder]:
        """Return everybody who holds a stream here."""
        return list(self._here)

    # what is held elsewhere

    def add_elsewhere(self, holder: Holder, change: int) -> None:
        """Take in that other processes hold so many more streams of somebody, or fewer."""
        _add(self._elsewhere, holder, change)
        self._judge(holder)

    def set_elsewhere(self, counts: Mapping[Holder, int]) -> None:
        """Take in what other processes hold of everybody; nothing of whom is left out."""
        self._elsewhere = dict(counts)

    def full(self) -> dict[Holder, int]:
        """Return who has as many streams as may be in all, or more, and how many that is."""
        return {holder: self._in_all(holder) for holder in self._full}

    def _in_all(self, holder: Holder) -> int:
        return self._here.get(holder, 0) + self._elsewhere.get(holder, 0)

    def _is_full(self, holder: Holder) -> bool:
        if holder == NOBODY:
            return False
        kind = holder[:1]
        is_full_here = self.here(holder) >= self._most_here[kind]
        return is_full_here or self._in_all(holder) >= self.most_in_all[kind]

    def _count(self, holder: Holder, change: int) -> None:
        if holder == NOBODY:
            return
        _add(self._here, holder, change)
        if self.changed is not None:
            self.changed.add(holder)
        self._judge(holder)

    def _judge(self, holder: Holder) -> None:
        """Note whether a holder whose count has changed has as many as may be."""
        is_full = self._in_all(holder) >= self.most_in_all[holder[:1]]
        if is_full or holder in self._full:
            self.full_version += 1
        if is_full:
            self._full.add(holder)
        else:
            self._full.discard(holder)


def _add(counts: dict[Holder, int], holder: Holder, change: int) -> None:
    count = counts.get(holder, 0) + change
    if count:
        counts[holder] = count
    else:
        counts.pop(holder, None)
