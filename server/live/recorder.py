"""The one total order: an accepted input gets its journal record, its place in the queue and its receipt in one step.

Every function here is synchronous and runs on the event loop's thread, so nothing can come between its parts. An
answer may be given once `durable(seq)` has returned, also for a duplicate. Source: DESIGN D8, D19, D22, D23.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.commands import SHAPING, Command, check_command, encode_command
from engine.journal import FINGERPRINT_SIZE, Actions, KeyRecord, RecordKind, encode_action, encode_actions, encode_key
from engine.market_queue import MarketQueue
from engine.messages import ACTION, Kind
from engine.receipt_table import Verdict
from engine.siphash import longest
from server.live.errors import Full, IdReused, JournalFailed, LiveError, ReadOnly, ReceiptsFull
from server.live.journal import Journal
from server.live.receipts import VALIDITY_TICKS, Admitted, Receipt, Receipts
from server.live.registry import NO_KEY, OPERATOR, AgentRegistry, idempotency_hash
from server.metrics import Metrics

NO_FINGERPRINT = bytes(FINGERPRINT_SIZE)
COMMANDS_MAX = 64
"""Commands that may wait for the next tick."""
_SEQ = Struct("<q")
"""The first field of a row of dtype ACTION."""


class Registration(NamedTuple):
    """An accepted registration. seq: of the record to wait for; repeated: the agent was there, the key is new."""

    agent: int
    owner: int
    seq: int
    repeated: bool


class Submitted(NamedTuple):
    """An accepted action. duplicate: whether it had been accepted before."""

    receipt: Receipt
    duplicate: bool


class Follower(Protocol):
    """Told at once of every action that was journaled. It may submit others."""

    def __call__(self, rows: NDArray[np.void], names: NDArray[np.uint8]) -> None:
        """Take in actions: dtype ACTION, sequences one after another; names: as in engine.journal.Actions."""


class Taken(NamedTuple):
    """What became of a batch. keys: what receipts are kept under; full: why no more was taken where it says FULL."""

    admitted: Admitted
    keys: NDArray[np.uint64]
    full: LiveError | None

    @property
    def last(self) -> int:
        """The highest sequence that a receipt of it has, 0 for none."""
        # np.isin takes a hundred times as long
        verdicts = self.admitted.verdicts
        is_known = (verdicts == Verdict.ACCEPTED) | (verdicts == Verdict.DUPLICATE)
        return int(self.admitted.seqs[is_known].max(initial=0))


class Input(NamedTuple):
    """An action that is right. asked_until: its valid_until_tick, -1 without; row: bytes of dtype ACTION, seq open."""

    kind: Kind
    client_action_id: str
    asked_until: int
    valid_until: int
    row: bytes


class Recorder:
    """Takes inputs in. What it needs is rebuilt from the journal by the world that owns it.

    commands: of an operator, behind the last mark: they wait for the next tick.
    """

    def __init__(
        self,
        journal: Journal,
        queue: MarketQueue,
        receipts: Receipts,
        registry: AgentRegistry,
        metrics: Metrics,
        commands: Sequence[Command] = (),
    ) -> None:
        self.journal = journal
        self.queue = queue
        self.receipts = receipts
        self.registry = registry
        self.followers: list[Follower] = []
        self._metrics = metrics
        self._commands = list(commands)
        self._frozen: str | None = None
        metrics.queue_actions.set_function(lambda: len(queue))
        # bound once: finding a labelled counter costs more than counting
        self._counters = {
            (kind, outcome): metrics.actions.labels(kind.name.lower(), outcome)
            for kind in Kind
            for outcome in ("accepted", "duplicate", "conflict", "refused_full")
        }
        self._registrations = {
            result: metrics.registrations.labels(result) for result in ("accepted", "repeated", "refused")
        }

    @property
    def read_only(self) -> str | None:
        """Why no input is taken, None while it is."""
        return "the journal cannot be written" if self.journal.failed else self._frozen

    def freeze(self, reason: str) -> None:
        """Take no input any more, for good."""
        self._frozen = reason

    async def durable(self, seq: int) -> None:
        """Return when a record is on disk: only then may its input be acknowledged. Raises JournalFailed."""
        await self.journal.durable(seq)

    def submit(self, row: NDArray[np.void], client_action_id: str, fingerprint: bytes) -> Submitted:
        """Accept an action, or recognise it. row: shape (1,), dtype ACTION, seq to be filled; fingerprint: 16 bytes.

        Raises IdReused, Full, ReceiptsFull, ReadOnly; after any of them nothing has happened.
        """
        agent, kind = int(row["agent_id"][0]), Kind(int(row["kind"][0]))
        key = self.receipts.key_of(agent, client_action_id)
        known = self.receipts.find(key, client_action_id)
        if known is not None:
            if known.fingerprint != fingerprint:
                self._counters[kind, "conflict"].inc()
                raise IdReused(client_action_id, known.seq)
            self._counters[kind, "duplicate"].inc()
            return Submitted(known, True)
        try:
            self.check_room()
            self.receipts.make_room()
        except (Full, ReceiptsFull):
            self._counters[kind, "refused_full"].inc()
            raise
        seq = self._record(row, fingerprint, client_action_id)
        self._counters[kind, "accepted"].inc()
        receipt = self.receipts.add(key, client_action_id, seq, fingerprint, int(row["valid_until"][0]))
        self._tell(row, np.frombuffer(client_action_id.encode(), np.uint8)[None])
        return Submitted(receipt, False)

    def take(self, given: Input) -> Submitted:
        """Accept an action of an agent, or recognise it.

        Raises IdReused, Full, ReceiptsFull, ReadOnly, ReceiptDamaged; after any of them nothing has happened.
        """
        kind, client_action_id, asked_until, valid_until, row = given
        full, seq = self._fullness(), self.journal.next_seq
        room = 0 if full is not None else 1
        verdict, receipt = self.receipts.take(row, client_action_id, asked_until, valid_until, seq, room)
        if receipt is None:
            # none of either: while this one was asked for, a receipt that held its place was forgotten
            refusal = full or self.receipts.fullness() or ReceiptsFull("as many receipts are kept as may; try again")
            if not isinstance(refusal, ReadOnly):
                self._counters[kind, "refused_full"].inc()
            try:
                raise refusal
            finally:
                # it holds this frame, which must not hold it
                del refusal, full
        self._counters[kind, _COUNTED[verdict]].inc()
        if verdict is Verdict.CONFLICT:
            raise IdReused(client_action_id, receipt.seq)
        if verdict is Verdict.ACCEPTED:
            # whether it takes anything was asked before, and nothing came in between: no receipt is without its record
            row = _SEQ.pack(seq) + row[_SEQ.size :]
            taken = self._append(RecordKind.ACTION, encode_action(row, receipt.fingerprint, client_action_id))
            assert taken == seq == receipt.seq
            self.queue.add(row)
            if self.followers:
                self._tell(np.frombuffer(row, ACTION), np.frombuffer(client_action_id.encode(), np.uint8)[None])
        return Submitted(receipt, verdict is Verdict.DUPLICATE)

    def submit_batch(
        self,
        rows: NDArray[np.void],
        names: NDArray[np.uint8],
        asked_until: NDArray[np.int64],
        verdicts: NDArray[np.int32],
    ) -> Taken:
        """Accept what of a batch can be accepted, in its order: one record, one place in the queue, for all of it.

        rows: shape (n,), dtype ACTION; seq is filled. names: client_action_ids, shape (n, width), filled up with
        zeros. asked_until: valid_until as it was asked for, -1 where it was not. verdicts: Verdict.ASKED or LEFT where
        a decision is wanted; becomes the decision. Raises ReceiptDamaged; then nothing has happened.
        """
        keys = self.receipts.keys(np.ascontiguousarray(rows["agent_id"]), names)
        prints = self.receipts.fingerprints(rows, asked_until)
        full = self._fullness()
        room = 0 if full is not None else self.queue.room
        admitted = self.receipts.admit(
            keys, prints, np.ascontiguousarray(rows["valid_until"]), verdicts, self.journal.next_seq, room
        )
        if admitted.accepted:
            rows["seq"] = admitted.seqs
            new = Actions(rows, prints, names)
            if admitted.accepted < len(rows):
                new = Actions(*(column[verdicts == Verdict.ACCEPTED] for column in new))
            # whether it takes anything was asked before, and nothing came in between
            trimmed = new._replace(names=new.names[:, : longest(new.names)])
            seq = self.journal.append(RecordKind.ACTIONS, encode_actions(trimmed), len(new.rows))
            assert seq == new.rows["seq"][0]
            self.queue.extend(new.rows)
            self._tell(new.rows, trimmed.names)
        self._count(rows["kind"], verdicts)
        return Taken(admitted, keys, full or self._no_room())

    def register(
        self, owner: int | None, key_hash: bytes, idempotency_key: str | None, presented: bytes = NO_KEY
    ) -> Registration:
        """Accept the registration of an agent; owner None makes a new owner. key_hash: SHA-256 of the key it gets.

        Under an Idempotency-Key this caller has used, the agent is the same and the new key replaces the old one.
        Otherwise a key that the owner has too many ends with it, not the one it came with (presented).
        Raises OwnerFull, WorldFull, Full, ReadOnly; after any of them nothing has happened.
        """
        try:
            registration = self._register(owner, key_hash, idempotency_key, presented)
        except LiveError:
            self._registrations["refused"].inc()
            raise
        self._registrations["repeated" if registration.repeated else "accepted"].inc()
        return registration

    def unregister(self, agent: int, client_action_id: str) -> Submitted:
        """Accept that an agent leaves; it is gone when its tick says so. Raises as submit does."""
        row = np.zeros(1, ACTION)
        row["agent_id"], row["kind"], row["market"] = agent, Kind.UNREGISTER, -1
        row["valid_until"] = self.receipts.tick + VALIDITY_TICKS
        return self.submit(row, client_action_id, _fingerprint_of_kind(Kind.UNREGISTER))

    def command(self, command: Command) -> int:
        """Accept what an operator wants and return the record to wait for; what shapes the world waits for its tick.

        Raises SettingError for values that are not allowed, Full, ReadOnly; after any of them nothing has happened.
        """
        command = check_command(command)
        self._check_open()
        if len(self._commands) >= COMMANDS_MAX:
            raise Full(f"{COMMANDS_MAX} commands wait for the next tick, as many as may")
        if self.journal.is_full:
            raise Full("as much waits for the disk as may")
        seq = self._append(RecordKind.COMMAND, encode_command(command))
        if isinstance(command, SHAPING):
            self._commands.append(command)
        self._metrics.commands.labels(type(command).__name__.lower()).inc()
        return seq

    def take_commands(self) -> list[Command]:
        """Return the commands that shape the next tick, in their order; they wait no longer."""
        taken, self._commands = self._commands, []
        return taken

    def issue_operator_key(self, key_hash: bytes) -> int:
        """Let a key be the operator's, in place of any before, and return the record to wait for. Raises ReadOnly."""
        record = KeyRecord(OPERATOR, 0, key_hash, self.registry.operator_hash)
        seq = self._append(RecordKind.KEY, encode_key(record))
        self.registry.issue(record)
        return seq

    def _register(
        self, owner: int | None, key_hash: bytes, idempotency_key: str | None, presented: bytes
    ) -> Registration:
        self._check_open()
        known = None if idempotency_key is None else self.registry.find_registration(owner, idempotency_key)
        if known is not None:
            if self.journal.is_full:
                raise Full("as much waits for the disk as may")
            return self._issue(known.number, known.owner, key_hash, known.key_hash, repeated=True)
        self.registry.check_room(owner)
        self.check_room()
        number = self.journal.next_seq
        row = np.zeros(1, ACTION)
        row["agent_id"], row["owner"], row["kind"], row["market"] = number, owner or number, Kind.REGISTER, -1
        row["valid_until"] = self.receipts.tick + VALIDITY_TICKS
        idempotency = "" if idempotency_key is None else idempotency_hash(owner, idempotency_key)
        self._record(row, NO_FINGERPRINT, idempotency)
        self.registry.begin(number, owner or number, idempotency)
        surplus = NO_KEY if owner is None else self.registry.surplus_key(owner, presented)
        return self._issue(number, owner or number, key_hash, surplus, repeated=False)

    def _issue(self, number: int, owner: int, key_hash: bytes, revoked: bytes, *, repeated: bool) -> Registration:
        record = KeyRecord(owner, number, key_hash, revoked)
        seq = self._append(RecordKind.KEY, encode_key(record))
        self.registry.issue(record)
        return Registration(number, owner, seq, repeated)

    def _record(self, row: NDArray[np.void], fingerprint: bytes, client_action_id: str) -> int:
        """Journal an action and queue it for the next tick; the order of the two is the order of the world."""
        row["seq"] = self.journal.next_seq
        seq = self._append(RecordKind.ACTION, encode_action(row.tobytes(), fingerprint, client_action_id))
        self.queue.extend(row)
        return seq

    def _append(self, kind: RecordKind, payload: bytes) -> int:
        try:
            return self.journal.append(kind, payload)
        except JournalFailed as error:
            raise ReadOnly("the journal cannot be written") from error

    def _tell(self, rows: NDArray[np.void], names: NDArray[np.uint8]) -> None:
        for follower in self.followers:
            follower(rows, names)

    def _fullness(self) -> LiveError | None:
        """Return why not a single action can be taken now, None when one can."""
        try:
            self.check_room()
        except LiveError as error:
            return error.with_traceback(None)
        return None

    def _no_room(self) -> Full:
        return Full(f"{self.queue.capacity} actions wait for the next tick, as many as may")

    def _count(self, kinds: NDArray[np.uint8], verdicts: NDArray[np.int32]) -> None:
        """Count a batch by kind and what became of it."""
        pairs = np.bincount(kinds.astype(np.int64) * len(Verdict) + verdicts)
        for pair in np.flatnonzero(pairs).tolist():
            kind, verdict = divmod(pair, len(Verdict))
            if (outcome := _COUNTED.get(Verdict(verdict))) is not None:
                self._counters[Kind(kind), outcome].inc(int(pairs[pair]))

    def _check_open(self) -> None:
        if (reason := self.read_only) is not None:
            raise ReadOnly(reason)

    def check_room(self) -> None:
        """See to it that one more action can be taken. Raises ReadOnly, Full."""
        self._check_open()
        if len(self.queue) >= self.queue.capacity:
            raise self._no_room()
        if self.journal.is_full:
            raise Full("as much waits for the disk as may")


_COUNTED = {
    Verdict.ACCEPTED: "accepted",
    Verdict.DUPLICATE: "duplicate",
    Verdict.CONFLICT: "conflict",
    Verdict.FULL: "refused_full",
    Verdict.RECEIPTS_FULL: "refused_full",
}


def _fingerprint_of_kind(kind: Kind) -> bytes:
    """Return the fingerprint of an action that has no content but its kind."""
    return hashlib.blake2b(bytes([kind]), digest_size=FINGERPRINT_SIZE).digest()
