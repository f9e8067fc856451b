"""What measurements are made of, and the page that shows them; no figure is asserted."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import changes, debezium, orders, shapes, topics
from bench.__main__ import BENCHES, record
from bench.measure import Figure, Sample, costs
from bench.report import PAGE, PLOT, page, plot, store, stored

PROMISED = {
    "bench", "unit", "value", "spread", "peer", "peer_value", "ratio", "runs", "machine", "versions"
}  # fmt: skip


def figure(**settings: object) -> Figure:
    given = {"bench": "log-sqlite", "what": "append", "unit": "rows/s", "values": [3.0, 1.0, 2.0]}
    return Figure(**{**given, **settings})  # type: ignore[arg-type]


def test_every_bench_and_no_other_is_on_the_page() -> None:
    named = set(re.findall(r"\bmake bench B=([a-z-]+)", PAGE.read_text(encoding="utf-8")))
    assert named == set(BENCHES)


def test_the_page_and_its_plot_are_those_of_the_stored_figures() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, stored()) == text
    assert plot(stored()) == PLOT.read_text(encoding="utf-8")


def test_a_record_has_what_is_promised_of_each_figure() -> None:
    line = record(figure(peer="a peer", peer_values=[1.0, 1.0, 1.0]), rows=10)
    assert line.keys() >= PROMISED
    assert (line["value"], line["spread"], line["ratio"]) == (2.0, 2.0, 2.0)


def test_a_ratio_above_one_is_better_also_where_less_is() -> None:
    assert figure(peer="a peer", peer_values=[8.0], less=True).ratio == 4.0
    assert figure(peer="a peer", peer_values=[8.0]).ratio == 0.25
    assert figure().ratio is None


def test_a_figure_measured_again_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "performance.jsonl"
    store([record(figure(peer="Debezium jdbc 3.6.0 sink, one task"), 1)], path)
    store([record(figure(peer="Debezium jdbc 3.6.0 sink, two tasks"), 2)], path)
    store([record(figure(peer="Debezium jdbc 3.6.1 sink, two tasks"), 3)], path)
    assert [line["rows"] for line in stored(path)] == [1, 3]


def test_the_generated_part_leaves_the_prose_alone() -> None:
    text = PAGE.read_text(encoding="utf-8")
    given = figure(peer="a peer", peer_values=[1.0], facts={"spilled_mb": 1024})
    written = page(text, [record(given, rows=1000)])
    assert "(spilled_mb 1,024) | 2.0 rows/s (± 1.0) |" in written
    assert page(written, stored()) == text


def test_the_plot_is_xml_and_has_a_bar_for_each_ratio() -> None:
    named = record(figure(peer="a <peer>", peer_values=[1.0]), rows=1) | {"compiled": False}
    texts = list(ElementTree.fromstring(plot([named, record(figure(), rows=1)])).itertext())
    assert "log-sqlite, append, pure Python, rows/s : a <peer>" in texts
    assert len([text for text in texts if text.startswith("log-sqlite")]) == 1


@pytest.mark.parametrize("phase", changes.PHASES)
def test_a_phase_has_as_many_changes_as_asked_and_each_row_once(phase: str) -> None:
    found = list(chain.from_iterable(changes.batches(phase, 1000, 300)))
    assert len(found) == 1000
    assert max(Counter(number for _, number, _ in found).values()) == 1


def test_after_the_mixture_inserts_updates_and_deletes_are_all_there() -> None:
    assert Counter(changes.after("mixed", 100).values()) == {1: 40, 2: 50, 0: 40}


def test_images_of_both_sides_are_compared_in_one_form() -> None:
    row = orders.row(600_000)
    ours = dict(zip(orders.NAMES, row, strict=True))
    ours |= {"created_at": "2026-11-22T09:40:00.6", "updated_at": "2026-11-22T10:40:00.6Z"}
    assert topics.headwater_row(ours) == row
    theirs = ours | {"total": "AA==", "created_at": 1_795_340_400_600_000}
    assert topics.debezium_row(theirs) == row


@pytest.mark.parametrize("shape", [shapes.ORDERS, shapes.WIDE, shapes.NARROW, shapes.HUNDRED])
def test_a_shape_makes_a_table_with_a_column_for_each_value(shape: shapes.Shape) -> None:
    ddl = shape.ddl("postgres", shape.tables[0])
    assert f"create table {shape.tables[0]} (" in ddl
    columns = re.sub(r"\([\d,]+\)", "", ddl).count(",") + 1
    assert len(shape.row(7)) == columns


def test_processor_time_and_memory_are_figures_of_their_own() -> None:
    sample = Sample(rows=1_000_000, wall_s=1, cpu_s=2, peak_mb=50)
    peer = Sample(rows=1_000_000, wall_s=1, cpu_s=20, peak_mb=600)
    found = {f.unit: (f.value, f.ratio) for f in costs("b", "w", [sample], "a peer", [peer])}
    assert found == {"CPU s/million rows": (2.0, 10.0), "MB resident": (50.0, 12.0)}


def test_a_peer_is_named_with_its_version() -> None:
    assert re.fullmatch(r"Debezium postgres \d+\.\d+\.\d+", debezium.called("postgres"))
