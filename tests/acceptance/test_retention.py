"""Retention: said while there is time, by status and preflight, and refused when it is too late."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from tests.acceptance.test_operator_errors import (
    OPERATOR,
    NewDatabase,
    a_name,
    drained,
    with_users,
)
from tests.faults.pipeline import Pipeline, pipeline, until
from tests.services import mysql as mysqld
from tests.services import postgres as postgresd
from tests.services.database import fresh
from tests.services.server import Server

ADD = "insert into users (name) values ('Alan')"
HOUR_S = 3600


def status(flow: Pipeline) -> dict[str, Any]:
    line = next(x for x in flow.run("status", "--json").splitlines() if x.startswith('{"sources"'))
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def found(flow: Pipeline, side: str) -> list[str]:
    """What status says of the one source or target; preflight says it of the same thing."""
    (one,) = status(flow)[side]
    findings = one["retention"]["findings"]
    checked = flow.start("preflight", "--json")
    checked.wait()
    named = json.loads(next(x for x in checked.said.splitlines() if x.startswith("{")))
    wheres = {f["where"] for f in named[flow.name if side == "sources" else "branch"]}
    assert {f["where"] for f in findings} <= wheres
    return [f["problem"] for f in findings]


def captured(flow: Pipeline) -> None:
    """Bring a row into the log that the target does not have."""
    flow.source.execute(ADD)
    capture = flow.capture()
    until(lambda: status(flow)["sources"][0]["lag_s"] == 0, "the row in the log")
    until(lambda: status(flow)["targets"][0]["batches_behind"] > 0, "a batch for the target")
    assert capture.stop() == 0


def age(flow: Pipeline, seconds: float) -> None:
    """Let the log's records have been stored earlier."""
    with closing(sqlite3.connect(flow.folder / "log.db", isolation_level=None)) as log:
        log.execute(f'update "{flow.name}.commits" set written_at = written_at - {seconds}')


def test_a_target_that_was_paused_for_half_of_the_logs_retention(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """H81: first a warning, then a refusal; never a shorter history."""
    source, target = with_users(new_database(postgres)), new_database(postgres)
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        flow.log["retention_hours"] = 1
        flow.configure()
        drained(flow)
        captured(flow)
        assert found(flow, "targets") == []
        retention = status(flow)["targets"][0]["retention"]
        assert HOUR_S - 600 < retention["forgotten_in_s"] <= HOUR_S
        age(flow, HOUR_S * 0.6)
        (said,) = found(flow, "targets")
        assert "the log keeps 60.0 minutes" in said
        assert "warning: target branch needs" in flow.run("status")
        age(flow, HOUR_S)
        capture = flow.capture()
        until(lambda: "LogTruncated" in why(flow) or "no longer" in why(flow), "the trim")
        assert capture.stop() == 0
        checked = flow.start("preflight", "branch")
        assert checked.wait() == OPERATOR
        assert "headwater rebuild" in checked.said


def why(flow: Pipeline) -> str:
    worker = flow.start("status", "--json")
    worker.wait()
    line = next(x for x in worker.said.splitlines() if x.startswith('{"sources"'))
    return str(json.loads(line)["targets"][0]["error"])


def test_a_target_that_is_paused_while_kafka_forgets(
    postgres: Server, kafka: Server, new_database: NewDatabase, kafka_prefix: str, tmp_path: Path
) -> None:
    """What the topics have now counts, not what they were made with."""
    source, target = with_users(new_database(postgres)), new_database(postgres)
    with pipeline(tmp_path, kafka_prefix, source, {"branch": target}, kafka) as flow:
        drained(flow)
        captured(flow)
        (one,) = status(flow)["sources"]
        week = one["retention"]["log_keeps_s"]
        assert (week, one["retention"]["log_keeps_bytes"]) == (7 * 24 * HOUR_S, None)
        assert one["retention"]["log_since"]
        assert found(flow, "targets") == []
        configs = {"retention.ms": "2000", "retention.bytes": "1000000"}
        resource = ConfigResource(ConfigResourceType.TOPIC, f"{kafka_prefix}.public.users", configs)
        admin = KafkaAdminClient(bootstrap_servers=kafka.address)
        admin.alter_configs([resource])
        admin.close()
        until(lambda: bool(found(flow, "targets")), "the warning")
        (one,) = status(flow)["sources"]
        kept = one["retention"]
        assert (kept["log_keeps_s"], kept["log_keeps_bytes"]) == (2.0, 1_000_000)


def test_a_slot_on_its_way_to_being_lost(
    postgres: Server, new_database: NewDatabase, tmp_path: Path, server_dir: Path
) -> None:
    """H53: half used, unreserved, lost; each is said, and what to run at the end."""
    flags = ["max_slot_wal_keep_size=64MB", "max_wal_size=4GB"]
    with postgresd.start(server_dir, flags) as server, fresh(server) as source:
        with_users(source)
        target = new_database(postgres)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            drained(flow)
            assert found(flow, "sources") == []
            kept = status(flow)["sources"][0]["retention"]
            assert kept["source_spare_bytes"] > kept["source_held_bytes"]
            seen: list[str] = []

            def is_said(words: str) -> bool:
                source.execute(ADD)
                source.query("select pg_switch_wal()")
                seen[:] = found(flow, "sources")
                return any(words in said for said in seen)

            until(lambda: is_said("and is lost after"), "a warning")
            until(lambda: is_said("more than max_slot_wal_keep_size"), "an unreserved slot")
            source.execute("checkpoint")
            until(lambda: is_said("lost (wal_removed)"), "a lost slot")
            checked = flow.start("preflight", flow.name)
            assert checked.wait() == OPERATOR
            refused = flow.start("run")
            assert refused.wait() == OPERATOR
            assert "drop SOURCE --log --yes" in refused.said
            assert "deletes in the targets" in refused.said


def test_a_slot_that_is_idle_for_too_long(
    postgres: Server, new_database: NewDatabase, tmp_path: Path, server_dir: Path
) -> None:
    """H53, by PostgreSQL 18's own clock."""
    with postgresd.start(server_dir) as server, fresh(server) as source:
        with_users(source)
        set_timeout = "alter system set idle_replication_slot_timeout = '{}'"
        source.execute(set_timeout.format("600s"))
        source.query("select pg_reload_conf()")
        target = new_database(postgres)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            drained(flow)
            assert found(flow, "sources") == []
            assert status(flow)["sources"][0]["retention"]["source_keeps_s"] == 600
            source.execute(set_timeout.format("4s"))
            source.query("select pg_reload_conf()")
            until(lambda: "was not read for" in " ".join(found(flow, "sources")), "the warning")


@pytest.mark.parametrize("early", [True, False], ids=["expiring", "purged"])
def test_a_binlog_that_goes_away_while_nothing_captures(
    early: bool, mysql: Server, new_database: NewDatabase, tmp_path: Path, server_dir: Path
) -> None:
    with mysqld.start(server_dir) as server, fresh(server) as source:
        with_users(source)
        target = new_database(mysql)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            drained(flow)
            assert found(flow, "sources") == []
            source.execute(ADD)
            if early:
                source.execute("set global binlog_expire_logs_seconds = 4")
                until(lambda: "was last captured" in " ".join(found(flow, "sources")), "a warning")
                return
            source.execute("flush binary logs")
            last = source.query("show binary logs")[-1][0]
            source.execute(f"purge binary logs to '{last}'")
            (said,) = found(flow, "sources")
            assert "purged" in said
            checked = flow.start("preflight", flow.name)
            assert checked.wait() == OPERATOR
