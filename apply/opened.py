"""A server by its URL, where it is not a target that is opened: its driver is loaded only then."""

from apply.server import Server


def opened(url: str, family: str) -> Server:
    """A server; nothing is connected yet. family: "mysql", "sqlite" or "postgres"."""
    if family == "mysql":
        from apply.mysql import MySQLServer

        return MySQLServer(url)
    if family == "sqlite":
        from apply.sqlite import SqliteServer

        return SqliteServer(url)
    from apply.postgres import PostgresServer

    return PostgresServer(url)
