"""Every error Headwater raises on purpose.

    HeadwaterError
    ├── Transient        back off, reopen, go on: lost connection, deadlock, broker electing
    ├── Fenced           another process owns this stream or target            exit 75
    ├── Poison           one change that cannot be applied, and is not parked  exit 65
    └── Operator         somebody must act; `hint` says what                   exit 78
        ├── Misconfigured    the configuration, or the database's settings
        ├── TargetPaused     a person has paused the target
        ├── SourceLost       the source no longer has the position we need, or denies it
        ├── Unsupported      the source did what the row log cannot express
        ├── LogTruncated     the log no longer holds what a reader needs
        ├── LogReplaced      this is not the log a checkpoint was made on
        └── SchemaConflict   a target table cannot take the source's rows as they are

Messages are verb phrases with positions and counts and never contain row values. Adapters map
driver errors to the most specific of these with `raise … from`; whatever is unknown stays as it is
and is fatal.
"""


class HeadwaterError(Exception):
    """The root: `str(error)` is one sentence, `hint` says what to do or to run (may be empty)."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Transient(HeadwaterError):
    """Trying again from the last durable state may help; the supervisor does, nobody else."""

    exit_code = 69


class Fenced(HeadwaterError):
    """Another process took over this source, stream or target; this one must not write again."""

    exit_code = 75


class Poison(HeadwaterError):
    """One change that this target cannot take; `hint` says how to find and mend it."""

    exit_code = 65


class Operator(HeadwaterError):
    """Going on would lose or guess something: a person must decide first."""

    exit_code = 78


class Misconfigured(Operator):
    """A configuration key, a password, a server setting or a grant is not what it must be."""


class TargetPaused(Operator):
    """A person has paused this target: nothing is applied until it is resumed."""


class SourceLost(Operator):
    """The source cannot continue from our position: purged binlog, dropped slot, another server."""


class Unsupported(Operator):
    """The source holds something that cannot be carried exactly: a statement, a column type, a row
    event.
    """


class LogTruncated(Operator):
    """The log no longer holds, or never received whole, what a reader needs."""


class LogReplaced(Operator):
    """The log was made anew, or is another one than the checkpoint was made on."""


class SchemaConflict(Operator):
    """A target table lacks, or cannot hold, what the source's table has."""
