"""What can go wrong on the live path, as one tree. Routes turn these into answers.

LiveError
├── OwnerFull          the owner has as many agents as it may (409)
├── WorldFull          as many agents are registered as the world takes (409)
├── IdReused           the client_action_id stands for another action (409)
├── Full               no room for more input just now; surely not applied (429)
├── ReceiptsFull       no room for another receipt; surely not applied (503)
├── ReceiptDamaged     a receipt on disk is not what was written; surely not applied (503)
├── ReadOnly           the world takes no input any more; surely not applied (503)
├── JournalFailed      the disk failed while this was being made durable: it may or may not be applied (504)
├── Frozen             the world stopped in the middle of a tick: private state cannot be read (503)
├── TickLate           the tick an answer waits for has not come in time (503)
├── FolderInUse        another process owns the data folder
├── WorldRefused       the data folder holds something this server must not run
└── NotRecorded        the journal does not hold the tick that was asked for
"""

from __future__ import annotations


class LiveError(Exception):
    """Root of what the live path raises on purpose."""


class OwnerFull(LiveError):
    """The owner has as many agents as it may, slots that are still blocked included."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"the owner has {count} of {limit} agents")
        self.count = count
        self.limit = limit


class WorldFull(LiveError):
    """As many agents are registered, or about to be, as the world takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} agents are registered, as many as the world takes")
        self.limit = limit


class IdReused(LiveError):
    """The client_action_id was used before for another action."""

    def __init__(self, client_action_id: str, seq: int) -> None:
        super().__init__(f"client_action_id {client_action_id!r} stands for another action, accepted as {seq}")
        self.client_action_id = client_action_id
        self.seq = seq


class Full(LiveError):
    """As much input waits for the next tick, or for the disk, as may; nothing was taken."""


class ReceiptsFull(LiveError):
    """As many receipts are kept as may be, all of them within their validity; nothing was taken."""


class ReceiptDamaged(LiveError):
    """A receipt cannot be read, so nobody can tell whether an id was used; nothing was taken."""


class ReadOnly(LiveError):
    """The world takes no input any more; nothing was taken."""


class JournalFailed(LiveError):
    """A write or sync of the journal failed; what was not durable before never will be acknowledged."""


class Frozen(LiveError):
    """The world stopped in the middle of a tick; what its arrays hold was never published."""


class TickLate(LiveError):
    """The tick an answer waits for has not come in time; asking again may find it."""


class FolderInUse(LiveError):
    """Another process owns the data folder."""


class WorldRefused(LiveError):
    """The data folder holds a world that this server, with these settings, must not run."""


class NotRecorded(LiveError):
    """The journal does not hold the tick that was asked for."""

    def __init__(self, tick: int, first: int, last: int) -> None:
        super().__init__(f"tick {tick} is not recorded; the journal holds ticks {first} to {last}")
        self.tick = tick
        self.first = first
        self.last = last
