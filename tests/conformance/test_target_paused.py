"""Every target: a pause lasts and nothing is written during it; who applies holds the target."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from schemas.errors import Operator, TargetPaused
from tests.conformance.targets import Place, Stream, c, column, deliver, held, place, table

__all__ = ["place"]

ITEMS = table("items", column("name"))


def test_nothing_is_applied_during_a_pause(place: Place) -> None:
    """H108: the pause stands in the target: every applier meets it, one that runs already too."""
    applier, person, stream = place.target(), place.target(), Stream()
    applier.prepare([ITEMS])
    deliver(applier, stream.batch(c(ITEMS, id=1, sync_id="a", name="Ada")))
    at = applier.checkpoint()
    person.pause("stocktaking")
    person.pause("stocktaking, longer")
    batch = stream.batch(c(ITEMS, id=2, sync_id="b", name="Bob"))
    with pytest.raises(TargetPaused, match="found target t paused") as caught:
        deliver(applier, batch)
    assert caught.value.hint == "run: headwater resume t"
    assert [row["name"] for row in held(person, ITEMS)] == ["Ada"]
    assert person.checkpoint() == at
    paused = person.paused()
    assert paused is not None
    assert paused.reason == "stocktaking, longer"
    assert person.resume()
    assert not person.resume()
    assert person.paused() is None
    deliver(applier, batch)
    assert [row["name"] for row in held(person, ITEMS)] == ["Ada", "Bob"]


def test_another_sources_changes_are_not_paused(place: Place) -> None:
    applier, other, stream = place.target(), place.target(source="depot"), Stream()
    applier.prepare([ITEMS])
    other.prepare([])
    other.pause("")
    deliver(applier, stream.batch(c(ITEMS, id=1, sync_id="a", name="Ada")))
    assert [row["name"] for row in held(applier, ITEMS)] == ["Ada"]


def test_a_target_that_was_never_prepared_cannot_be_paused(place: Place) -> None:
    person = place.target()
    assert person.paused() is None
    assert not person.resume()
    with pytest.raises(Operator, match="found no tables of Headwater"):
        person.pause("")


def test_who_applies_holds_the_target_until_it_closes_it(place: Place) -> None:
    """Also across connections of its own, which end where tables are prepared."""
    first, stream = place.target(), Stream()
    first.prepare([])
    assert first.hold()
    assert first.hold()
    deliver(first, stream.batch(c(ITEMS, id=1, sync_id="a", name="Ada")))
    with closing(place.target()) as second:
        assert not second.hold()
    with closing(place.target(source="depot")) as another:
        assert another.hold()
    first.close()
    assert place.target().hold()


def test_what_a_target_was_held_by_is_dropped_with_it(place: Place) -> None:
    target = place.target()
    target.prepare([])
    assert target.hold()
    target.drop()
    target.close()
    assert place.tables() == set()
    if place.is_sqlite:
        file = Path(str(make_url(place.database.url).database))
        assert [p.name for p in file.parent.glob(f"{file.name}*") if "applies" in p.name] == []
