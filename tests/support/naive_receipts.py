"""Receipts in a dict: what engine.receipt_table does, as plainly as it can be said; and SipHash as it is published."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.messages import Status
from engine.receipt_table import Verdict

Key = tuple[int, int]
_MASK = (1 << 64) - 1


@dataclass
class Entry:
    """One receipt."""

    key: Key
    fingerprint: Key
    seq: int
    ends: int
    tick: int = 0
    order_id: int = 0
    filled: int = 0
    value: int = 0
    open: int = 0
    price: int = 0
    code: int = 0
    status: int = 0
    is_settled: bool = False

    @property
    def may_change(self) -> bool:
        """Whether it waits for its tick or its own order rests."""
        rests = self.status in (Status.RESTING, Status.PARTIAL) and self.open > 0 and self.order_id == self.seq
        return self.status == 0 or rests


@dataclass
class NaiveTable:
    """All receipts; findable: those that a key leads to."""

    capacity: int
    entries: list[Entry] = field(default_factory=list)
    findable: dict[Key, Entry] = field(default_factory=dict)

    def admit(
        self, keys: list[Key], prints: list[Key], ends: list[int], oldest: int, next_seq: int, room: int,
        verdicts: list[int],
    ) -> list[tuple[int, int]]:  # fmt: skip
        """Return verdict and sequence of each action."""
        found, count = [], 0
        for key, fingerprint, end, verdict in zip(keys, prints, ends, verdicts, strict=True):
            seq = 0
            if verdict in (Verdict.ASKED, Verdict.LEFT):
                known = self.findable.get(key)
                if known is not None and known.ends < oldest:
                    self._forget(known)
                    known = None
                if known is not None:
                    verdict = Verdict.DUPLICATE if known.fingerprint == fingerprint else Verdict.CONFLICT
                    seq = known.seq
                elif verdict == Verdict.LEFT:
                    verdict = Verdict.UNKNOWN_AGENT
                elif count >= room:
                    verdict = Verdict.FULL
                elif len(self.entries) >= self.capacity:
                    verdict = Verdict.RECEIPTS_FULL
                else:
                    seq = next_seq + count
                    count += 1
                    self._add(Entry(key, fingerprint, seq, end))
                    verdict = Verdict.ACCEPTED
            found.append((int(verdict), seq))
        return found

    def decide(self, tick: int, outcomes: list[dict[str, int]]) -> None:
        """Take the outcomes of a tick."""
        for outcome in outcomes:
            for entry in self._open(outcome["seq"]):
                entry.tick = tick
                for name in ("order_id", "filled", "open", "code", "status"):
                    setattr(entry, name, outcome[name])
                entry.value = outcome["needed"] if outcome["code"] else outcome["value"]
                entry.price = outcome["available"] if outcome["code"] else outcome["price"]
                entry.is_settled = not entry.may_change

    def follow(self, updates: list[dict[str, int]]) -> None:
        """Take what happened to resting orders."""
        for update in updates:
            for entry in self._open(update["order_id"]):
                if entry.status == 0:
                    continue
                entry.filled += update["filled"]
                entry.value += update["value"]
                entry.open, entry.status = update["open"], update["status"]
                entry.price = update["price"] or entry.price
                entry.is_settled = not entry.may_change

    def sweep(self, oldest: int) -> None:
        """Forget what may still change and is past its time."""
        for entry in [entry for entry in self.entries if not entry.is_settled and entry.ends < oldest]:
            self._forget(entry)

    def release(self, seqs: set[int]) -> None:
        """Take settled ones out."""
        for entry in [entry for entry in self.entries if entry.seq in seqs]:
            self.entries.remove(entry)
            if self.findable.get(entry.key) is entry:
                del self.findable[entry.key]

    def _open(self, seq: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.seq == seq and not entry.is_settled]

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.findable[entry.key] = entry

    def _forget(self, entry: Entry) -> None:
        if self.findable.get(entry.key) is entry:
            del self.findable[entry.key]
        if not entry.is_settled:
            self.entries.remove(entry)


def candidates(starts: list[int], remainders: list[int], bits: int, highs: list[int]) -> dict[int, int]:
    """Return which keys may be in a sorted row of receipts and the first place where each may be.

    highs: the first 64 bits of each key. Arrays as in engine.receipt_table.find_candidates.
    """
    found = {}
    for i, high in enumerate(highs):
        bucket, remainder = high >> (64 - bits), (high >> (48 - bits)) & 0xFFFF
        places = [place for place in range(starts[bucket], starts[bucket + 1]) if remainders[place] == remainder]
        if places:
            found[i] = places[0]
    return found


def siphash(key: bytes, message: bytes) -> bytes:
    """Return SipHash-2-4-128 of a message: Aumasson and Bernstein's reference code in Python."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turned(word: int, bits: int) -> int:
        return ((word << bits) | (word >> (64 - bits))) & _MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & _MASK
            v[1] = turned(v[1], 13) ^ v[0]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[3]) & _MASK
            v[3] = turned(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & _MASK
            v[3] = turned(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & _MASK
            v[1] = turned(v[1], 17) ^ v[2]
            v[2] = turned(v[2], 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 255])
    for begin in range(0, len(padded), 8):
        word = int.from_bytes(padded[begin : begin + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return first.to_bytes(8, "little") + (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
