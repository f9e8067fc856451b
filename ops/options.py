"""Options that every command has, and the loading of the configuration that they lead to."""

from pathlib import Path
from typing import Annotated

import typer

from ops import journal
from ops.config_file import DEFAULT_PATH, Loaded, load

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", envvar="HEADWATER_CONFIG", help="the configuration file")
]
Target = Annotated[str, typer.Argument(help="a target of the configuration")]
OfTable = Annotated[str | None, typer.Option("--table", help="only schema.table of the source")]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        envvar="HEADWATER_DEBUG",
        help="more log lines, and tracebacks (which may show row values)",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="do it; without it only show what would be done")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only show what would be done")]

DEFAULT = DEFAULT_PATH


def begin(path: Path, debug: bool) -> Loaded:
    """Set up this process's log lines and read the configuration."""
    journal.begin(debug=debug)
    return load(path)
