"""What can go wrong in the engine.

EngineError
├── SettingError        a wrong setting; names the field, the value and what is allowed
├── ScenarioInvalid     a scenario that cannot be run; names the place and what is allowed
├── InvariantBroken     money or goods do not add up, or an array left its range: the world must freeze
├── QueueFull           the market queue holds as many actions as it may
└── JournalDamaged      bytes that are not a valid journal; carries the offset
"""


class EngineError(Exception):
    """Root of everything the engine raises on purpose."""


class SettingError(EngineError, ValueError):
    """A setting is outside what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} must be {allowed}, got {value!r}")
        self.field = field
        self.value = value
        self.allowed = allowed


class ScenarioInvalid(EngineError, ValueError):
    """A scenario is not written as it must be, or asks for what the world cannot do."""


class InvariantBroken(EngineError):
    """An invariant of the world does not hold (ECONOMY A14)."""


class QueueFull(EngineError):
    """The market queue is full; the action was not taken."""


class JournalDamaged(EngineError):
    """The journal holds bytes that are not a valid record."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason
