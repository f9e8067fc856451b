"""`headwater verify` as people run it: one pass, or pass after pass until stopped."""

import time
from collections.abc import Callable, Sequence

from ops import show
from ops.compose import opened_log, opened_source, opened_target, target_config
from ops.config import Config
from ops.resync import resync
from ops.supervise import listening, supervise
from ops.verify import Repair, verify
from ops.verify_fence import Records
from ops.verify_report import Report, print_report, summary


def run_verify(
    config: Config,
    name: str,
    *,
    tables: Sequence[str] = (),
    timeout_s: float = 60.0,
    values: bool = False,
    json: bool = False,
    repair: bool = False,
) -> int:
    """Compare the target of that name with its source once, print, and give the exit code."""
    report = _one_pass(
        config,
        name,
        tables=tables,
        timeout_s=timeout_s,
        values=values,
        repair=_repairer(config, name, timeout_s) if repair else None,
        json=json,
        pause=time.sleep,
        heed=lambda: None,
    )
    print_report(report, json=json)
    return report.exit_code


def run_verify_continuously(
    config: Config,
    name: str,
    *,
    tables: Sequence[str] = (),
    timeout_s: float = 60.0,
    values: bool = False,
    json: bool = False,
    repair: bool = False,
    every_s: float = 60.0,
) -> None:
    """One line or JSON document for each pass, until stopped; a pass begins at the earliest
    `every_s` after the last one began. A connection that is lost is opened again, and the pass goes
    on where it was.
    """
    with listening() as signals:

        def attempt(heed: Callable[[bool], None]) -> None:
            while True:
                began_s = time.monotonic()
                report = _one_pass(
                    config,
                    name,
                    tables=tables,
                    timeout_s=timeout_s,
                    values=values,
                    repair=_repairer(config, name, timeout_s) if repair else None,
                    json=json,
                    pause=signals.wait,
                    heed=signals.heed,
                )
                heed(True)
                _print_pass(report, json=json)
                signals.wait(max(0.0, every_s - (time.monotonic() - began_s)))

        supervise(attempt, signals, target=name)


def _one_pass(
    config: Config,
    name: str,
    *,
    tables: Sequence[str],
    timeout_s: float,
    values: bool,
    repair: Repair | None,
    json: bool,
    pause: Callable[[float], None],
    heed: Callable[[], None],
) -> Report:
    settings = target_config(config, name)
    with (
        opened_source(config, settings.source) as source,
        opened_target(config, name) as target,
        opened_log(config, settings.source) as log,
        show.progress(total=0, shown=not json) as advance,
    ):
        rows = 0

        def seen(table: str, more: int) -> None:
            nonlocal rows
            rows += more
            advance(rows, f"rows, {table}")
            heed()

        return verify(
            source,
            target,
            settings.placement,
            tables=tables,
            timeout_s=timeout_s,
            values=values,
            records=Records(log, name),
            pause=pause,
            seen=seen,
            repair=repair,
        )


def _repairer(config: Config, name: str, timeout_s: float) -> Repair:
    """Sends rows through the pipeline, for this target alone."""
    source = target_config(config, name).source

    def repair(keys: dict[str, list[str]]) -> int:
        return resync(config, source, name, keys, timeout_s=timeout_s)

    return repair


def _print_pass(report: Report, *, json: bool) -> None:
    if json:
        print_report(report, json=True)
        return
    at, rows = show.instant(report.checked_at), sum(t.source_rows for t in report.tables)
    print(f"{at} {summary(report)} ({rows:,} rows in {report.seconds:.1f} s)", flush=True)
