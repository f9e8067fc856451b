"""How beats (capture/beats.py) are kept in MySQL and MariaDB, and what they need there."""

from collections.abc import Callable
from typing import Any

from capture.beats import Beats

GRANT = "CREATE, DROP, SELECT, INSERT, DELETE"
"""On the table alone, which need not be there yet."""

_CREATE = (
    "CREATE TABLE IF NOT EXISTS {table} (number bigint PRIMARY KEY, source varchar(128) NOT NULL, "
    "dumped varchar(128) NOT NULL, position longtext NOT NULL, noted_at bigint NOT NULL) "
    "ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
)


def of(source: str, run: Callable[..., list[tuple[Any, ...]]]) -> Beats:
    """The beats of a source."""
    return Beats(
        source=source,
        run=run,
        quote=lambda name: "`" + name.replace("`", "``") + "`",
        create=(_CREATE,),
        lock="SELECT GET_LOCK('headwater_beat', 10)",
        unlock="SELECT RELEASE_LOCK('headwater_beat')",
    )


def is_read_only(run: Callable[..., list[tuple[Any, ...]]]) -> bool:
    """Whether the server takes no writes: an administrator's beat would be an errant transaction
    on a replica.
    """
    return str(run("SELECT @@global.read_only")[0][0]) in ("1", "ON")
