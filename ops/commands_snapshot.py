"""The command that copies tables anew, or some of their rows, while the stream goes on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Literal

import orjson
import typer

from ops import journal, show
from ops.compose import opened_log, opened_source, source_config, target_config
from ops.config import Config
from ops.flow import run_capture
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from ops.resync import NotTaken, asked, control, states
from ops.supervise import listening
from schemas.codec import Wire
from schemas.errors import Misconfigured, Operator
from schemas.table import Table
from transport.record import Request

SAY_EVERY_S = 1.0


def snapshot(
    source: Annotated[str, typer.Argument(help="a source of the configuration")],
    tables: Annotated[
        list[str] | None, typer.Argument(help="schema.table …; without any: every table")
    ] = None,
    for_target: Annotated[
        str | None, typer.Option("--for", help="only for this target; others step over it")
    ] = None,
    identity: Annotated[
        list[str] | None,
        typer.Option("--id", help="only the row of this sync_id, of one table; may be repeated"),
    ] = None,
    identities: Annotated[
        Path | None, typer.Option("--ids", help="a file with such identities, one a line")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", help="only rows after this key, of one table")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="only rows up to this key, of one table")
    ] = None,
    pause: Annotated[bool, typer.Option("--pause", help="let all copies stand still")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="let them go on")] = False,
    cancel: Annotated[int | None, typer.Option(help="end the copy of this number")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="until it is in the log, or only ask for it")
    ] = True,
    here: Annotated[
        bool,
        typer.Option("--here", help="capture here until it is done; a running capture is fenced"),
    ] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy whole tables into the log anew, or some rows, changes meanwhile included.

    The running capture does it, and its stream goes on; where none takes the request within 15
    seconds, this command captures until the copy is done. Rows that the source no longer has are
    deleted in the targets.
    """
    loaded = begin(config, debug).config
    source_config(loaded, source)
    if for_target is not None and target_config(loaded, for_target).source != source:
        raise Misconfigured(
            f"found that {for_target} is no target of {source}", hint="see: headwater config"
        )
    if pause or resume or cancel is not None:
        what: Literal["pause", "resume", "cancel"]
        what = "pause" if pause else "resume" if resume else "cancel"
        number = control(loaded, source, Request(what=what, number=cancel))
        if json:
            show.as_json({"source": source, "request": number, "what": what})
        else:
            print(f"asked the capture of {source} to {what} (request {number})")
        return
    listed = [*(identity or ()), *(_lines(identities) if identities else ())]
    wanted = _wanted(loaded, source, tables or [], listed, after, until)
    request = Request(what="copy", tables=wanted, for_target=for_target)
    copy = _copied(loaded, source, request, wait=wait, here=here, json=json)
    if copy.get("state") in ("failed", "cancelled"):
        raise Operator(
            f"found the copy of {source} {copy['state']}", hint=copy.get("why", "ask again")
        )


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}") from error


def _wanted(
    config: Config,
    source: str,
    names: list[str],
    identities: list[str],
    after: str | None,
    until: str | None,
) -> dict[str, dict[str, Any]]:
    """What is asked of each table; raises Misconfigured for a table that is not captured."""
    with opened_source(config, source) as opened:
        described = {t.full_name: t for t in opened.describe()}
    for name in names:
        if name not in described:
            raise Misconfigured(
                f"found no captured table {name} in {source}",
                hint=f"captured: {', '.join(described)}",
            )
    is_part = bool(identities) or after is not None or until is not None
    if is_part and len(names) != 1:
        raise Misconfigured(
            "cannot copy some rows of several tables", hint="name one table: schema.table"
        )
    if not is_part:
        return {name: {} for name in names or described}
    table = described[names[0]]
    if identities:
        return {names[0]: {"keys": [key_of(table, text) for text in identities]}}
    bounds = {"after": after, "until": until}
    return {names[0]: {n: _place(text) for n, text in bounds.items() if text is not None}}


def key_of(table: Table, text: str) -> str:
    """An identity as the log's keys have it; of several columns it is given as JSON."""
    if text.lstrip().startswith("{"):
        given = orjson.loads(text)
        return orjson.dumps({name: given[name] for name in table.identity}).decode()
    if len(table.identity) != 1:
        raise Misconfigured(
            f"found one value for an identity of several columns, {', '.join(table.identity)}",
            hint='give it as JSON: {"column": value, …}',
        )
    (name,) = table.identity
    kind = table.by_name[name].kind.name
    wire: Wire = int(text) if kind == "int" else text.lower() if kind == "uuid" else text
    return orjson.dumps({name: wire}).decode()


def _place(text: str) -> list[str]:
    """A place in the order in which a table is read; of several columns a JSON list of texts."""
    return [str(v) for v in orjson.loads(text)] if text.startswith("[") else [text]


def _copied(
    config: Config, source: str, request: Request, *, wait: bool, here: bool, json: bool
) -> Mapping[str, Any]:
    """Ask, and watch until the copy has ended; capture until then where nobody does."""
    with opened_log(config, source) as log:
        number, at = asked(log, request)
        if not wait:
            _say(source, number, {}, json=json)
            return {}
        last: Mapping[str, Any] = {}
        with show.progress(total=0, shown=not json) as bar:
            watch = _Watch(source, number, bar, json=json)
            try:
                for copy, _ in () if here else states(log, number, at):
                    watch.see(copy)
                    last = copy
            except NotTaken:
                journal.get().info("capturing_here", source=source, reason="nobody captures it")
                here = True
            if here:
                last = _captured(config, source, number, watch)
    _say(source, number, last, json=json)
    return last


def _captured(config: Config, source: str, number: int, watch: "_Watch") -> Mapping[str, Any]:
    last: Mapping[str, Any] = {}

    def see(copy: Mapping[str, Any]) -> None:
        nonlocal last
        last = copy
        watch.see(copy)

    with listening() as signals:
        run_capture(config, source, signals, until=number, copied=see)
    return last


class _Watch:
    """Says how far a copy is: as a bar, or as JSON lines."""

    def __init__(self, source: str, number: int, bar: Any, *, json: bool) -> None:
        self._source, self._number, self._bar, self._json = source, number, bar, json
        self._begun_at, self._said_at = monotonic(), 0.0

    def see(self, copy: Mapping[str, Any]) -> None:
        """Take a state in."""
        now = monotonic()
        if not copy or (self._json and now - self._said_at < SAY_EVERY_S):
            return
        self._said_at = now
        rows, of = _sums(copy)
        rate = rows / max(now - self._begun_at, 0.001)
        left_s = None if not of or not rate else round(max(0, of - rows) / rate, 1)
        if self._json:
            document = {"source": self._source, "request": self._number, "state": copy["state"]}
            show.as_json({**document, "rows": rows, "of": of, "rate": rate, "left_s": left_s})
            return
        done = sum(state["done"] for state in copy["tables"].values())
        left = "" if left_s is None else f", {left_s:,.0f} s left"
        text = f"rows, {done}/{len(copy['tables'])} tables, {rate:,.0f} rows/s{left}"
        self._bar(rows, text, of)


def _sums(copy: Mapping[str, Any]) -> tuple[int, int]:
    """Rows copied so far, and about how many there will be (0: not known)."""
    states = list(copy["tables"].values())
    of: Iterator[int] = (s["of"] for s in states if s.get("of"))
    return sum(s["rows"] for s in states), sum(of)


def _say(source: str, number: int, copy: Mapping[str, Any], *, json: bool) -> None:
    if not copy:
        rows, tables, state = 0, 0, "asked"
    else:
        rows, tables, state = _sums(copy)[0], len(copy["tables"]), copy["state"]
    if json:
        document = {"source": source, "request": number, "state": state}
        show.as_json({**document, "rows": rows, "tables": tables})
    elif state == "asked":
        print(f"asked the capture of {source} for it (request {number})")
    elif state == "done":
        print(f"copied {rows:,} rows in {tables} tables")
