"""The error tree. A user's mistake is a branch of its own; everything outside it is a defect.

    NightshiftError
    ├── UserError              one sentence, exit 1, nothing changed
    │   ├── NotFoundError      an id, a version or a path that does not exist
    │   ├── NotAllowedError    the right thing asked by the wrong person
    │   ├── ConflictError      somebody else changed it first, or it runs already
    │   │   ├── ContradictionError   approving it would leave two answers to one question
    │   │   └── HeldError            one of a flood; a reviewer must release it first
    │   ├── BusyError          the queue is full; ask again
    │   └── OutOfSpaceError    the disk is full; nothing of the write stays
    ├── IntegrityError         stored data is not what was written
    └── EngineError            the model server cannot answer this
        └── EngineAwayError    the model server can answer nothing for now

It knows nothing about click or Slack: each door turns these into its own words.
"""


class NightshiftError(Exception):
    """Any failure that Nightshift names itself."""

    code = "error"


class UserError(NightshiftError):
    """A mistake that the person can mend; the message is one sentence that says how."""

    code = "bad_input"


class NotFoundError(UserError):
    """What was named does not exist."""

    code = "not_found"


class NotAllowedError(UserError):
    """The person may not do this."""

    code = "not_allowed"


class ConflictError(UserError):
    """The state changed meanwhile, or somebody else is doing it now."""

    code = "conflict"


class ContradictionError(ConflictError):
    """An approved correction says otherwise, and nobody said yet which one stands."""

    def __init__(self, message: str, others: tuple[int, ...]) -> None:
        """Keep the ids of the approved corrections that are contradicted."""
        super().__init__(message)
        self.others = others


class HeldError(ConflictError):
    """A correction is one of many that are nearly the same, and was not released."""


class BusyError(UserError):
    """Too much is waiting already."""

    code = "busy"


class OutOfSpaceError(UserError):
    """The disk is full, or a file may not grow."""

    code = "disk_full"


class IntegrityError(NightshiftError):
    """Stored bytes do not match their recorded size or hash."""

    code = "integrity"


class EngineError(NightshiftError):
    """A model server did not give what was asked of it; the message is one sentence that says why."""

    code = "engine"


class EngineAwayError(EngineError):
    """A model server cannot be reached, does not offer the model, or does not behave like one."""

    code = "engine_away"
