"""The error tree. A user's mistake is a branch of its own; everything outside it is a defect.

    NightshiftError
    ├── UserError              one sentence, exit 1, nothing changed
    │   ├── NotFoundError      an id, a version or a path that does not exist
    │   ├── NotAllowedError    the right thing asked by the wrong person
    │   ├── ConflictError      somebody else changed it first, or it runs already
    │   ├── BusyError          the queue is full; ask again
    │   └── OutOfSpaceError    the disk is full; nothing of the write stays
    └── IntegrityError         stored data is not what was written

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


class BusyError(UserError):
    """Too much is waiting already."""

    code = "busy"


class OutOfSpaceError(UserError):
    """The disk is full, or a file may not grow."""

    code = "disk_full"


class IntegrityError(NightshiftError):
    """Stored bytes do not match their recorded size or hash."""

    code = "integrity"
