"""`headwater verify --barrier`: a check that rides in the stream, and is compared by the applier at
the very place at which the source was read (apply/barrier.py). No lag is waited out.
"""

import time
from collections.abc import Sequence

from apply.checked import Checked
from ops import show
from ops.compose import opened_log, opened_target, target_config
from ops.config import Config
from ops.resync import asked, ended
from schemas.errors import Operator
from transport.record import Request

POLL_S = 0.1
VALID, INVALID, UNKNOWN = 0, 1, 3


def run_barrier(
    config: Config, name: str, *, tables: Sequence[str], timeout_s: float, json: bool
) -> int:
    """Ask the running capture for a check, wait until the target has compared, print; the exit
    code. Raises Operator where nobody captures, or the check cannot be made.
    """
    source = target_config(config, name).source
    with opened_log(config, source) as log, opened_target(config, name) as target:
        request = Request(what="copy", tables={t: {} for t in tables}, for_target=name, check=True)
        number, after = asked(log, request)
        copy, batch = ended(log, source, number, after)
        if copy["state"] != "done":
            raise Operator(
                f"found the check {number} {copy['state']}",
                hint=copy.get("why") or "ask again",
            )
        deadline = time.monotonic() + timeout_s
        while not ((applied := target.applied()) and applied.batch >= batch):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        found = [c for c in target.checked() if c.number.split(".")[0] == str(number)]
    return _told(sorted(copy["tables"]), {c.table: c for c in found}, json=json)


def _told(names: Sequence[str], found: dict[str, Checked], *, json: bool) -> int:
    codes = [_code(found.get(name)) for name in names]
    words = {VALID: "valid", INVALID: "invalid", UNKNOWN: "unknown"}
    code = INVALID if INVALID in codes else UNKNOWN if UNKNOWN in codes else VALID
    if json:
        tables = [
            {"table": n, "verdict": words[c]} | (found[n]._asdict() if n in found else {})
            for n, c in zip(names, codes, strict=True)
        ]
        show.as_json({"verdict": words[code], "tables": tables})
        return code
    rows = [
        (n, words[c], *((f.rows, f.different, f.extra, f.position) if (f := found.get(n)) else ()))
        for n, c in zip(names, codes, strict=True)
    ]
    show.table(["table", "verdict", "rows", "different", "extra", "at"], rows)
    listed = [(n, kind, key) for n in names if n in found for kind, key in found[n].listed]
    if listed:
        show.table(["table", "found", "identity"], listed)
    print(words[code])
    return code


def _code(checked: Checked | None) -> int:
    """A table without a result, or whose result is not whole, is not known: its target began to
    read later, or its identity has several columns.
    """
    if checked is None or checked.extra is None:
        return UNKNOWN
    return INVALID if checked.different or checked.extra else VALID
