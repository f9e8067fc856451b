"""The command `headwater`: its subcommands, and how every error ends.

Invariant: whatever goes wrong is one sentence on stderr, what to do about it, and the exit code
of its class (schemas/errors.py); a traceback, which may show row values, only with --debug.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import typer

from ops import (
    commands_child,
    commands_conflicts,
    commands_enrol,
    commands_flow,
    commands_import,
    commands_look,
    commands_parked,
    commands_placeholders,
    commands_push,
    commands_rebuild,
    commands_referee,
    commands_setup,
    commands_snapshot,
    show,
)
from ops.supervise import Stop, exit_code_of
from schemas.errors import HeadwaterError, Transient

app = typer.Typer(
    name="headwater",
    help="Copies row changes from MySQL, MariaDB and PostgreSQL through a log into other "
    "databases, matching rows by sync_id.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    commands_flow.run,
    commands_flow.capture,
    commands_flow.apply,
    commands_flow.pause,
    commands_flow.resume,
    commands_push.push,
    commands_setup.prepare,
    commands_import.position,
    commands_import.import_check,
    commands_import.catch_up,
    commands_snapshot.snapshot,
    commands_enrol.enrol,
    commands_rebuild.rebuild,
    commands_look.verify,
    commands_look.status,
    commands_setup.preflight,
    commands_look.peek,
    commands_setup.drop,
    commands_setup.config,
    commands_look.demo,
):
    app.command()(command)
app.add_typer(commands_parked.app)
app.add_typer(commands_placeholders.app)
app.add_typer(commands_conflicts.app)
app.add_typer(commands_child.app)
app.add_typer(commands_referee.app)


def main() -> NoReturn:
    """Run the command line; always ends with SystemExit."""
    try:
        app()
    except Stop as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        _report(error)
        sys.exit(exit_code_of(error))
    sys.exit(0)


def _report(error: Exception) -> None:
    if "--debug" in sys.argv or os.environ.get("HEADWATER_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, HeadwaterError):
        away = "check that it runs and can be reached, then start again"
        show.error(str(error), error.hint or (away if isinstance(error, Transient) else ""))
        return
    # Its message is a driver's or the system's, and may hold row values.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [
        f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename
    ]
    place = ours[-1] if ours else frame
    show.error(
        f"stopped by an unexpected {type(error).__name__} at "
        f"{Path(place.filename).name}:{place.lineno}",
        "run it again with --debug for the traceback (it may show row values), and report it",
    )


if __name__ == "__main__":
    main()
