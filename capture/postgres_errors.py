"""What PostgreSQL's connection errors mean, by their text: libpq gives no SQLSTATE for them."""

from schemas.errors import HeadwaterError, Misconfigured, Transient


def connection_error(message: str) -> HeadwaterError:
    """What a refused connection means: wrong settings for a person, all else may pass.

    An unknown text counts as passing.
    """
    text = first_line(message)
    low = text.lower()
    causes = ("password", "authentication", "pg_hba", "does not exist", "must be", "permission")
    if any(cause in low for cause in causes):
        return Misconfigured(
            f"was refused by PostgreSQL: {text}",
            hint="check user, password and database in the source's url, and pg_hba.conf",
        )
    return Transient(
        f"could not reach PostgreSQL: {text}", hint="check host and port, and that it runs"
    )


def first_line(message: str) -> str:
    """An error's first line, without libpq's prefixes."""
    line = message.strip().partition("\n")[0]
    return line.rpartition("FATAL:")[2].rpartition("ERROR:")[2].strip()
