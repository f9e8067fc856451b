"""Plans for all described tables of one source: links between them, and what prevents them.

Nothing is changed here. A problem is a `Finding`; a plan is made only for a table without refusals.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import sqlalchemy as sa

from apply import exceptions
from apply.catalog import Catalog
from apply.declared import Declared
from apply.declared_fit import unusable
from apply.documents import steps
from apply.fit import family_of, staged_as
from apply.placement import (
    conflict_rules,
    missing_parent,
    own_key,
    wanted,
)
from apply.plan import Bringing, Link, Plan, Reference, Taken
from apply.references import (
    followed,
    leads_to,
    translated_keys,
    untranslatable,
    with_ancestors,
)
from apply.server import Server
from apply.target import Placement
from apply.view import view_of
from schemas.errors import SchemaConflict
from schemas.finding import Finding
from schemas.table import Table


def ranks(
    tables: Sequence[Table], declared: Mapping[str, Collection[str]] | None = None
) -> dict[str, int]:
    """Parents before children; in a cycle, the order of first meeting. declared: more parents, by
    table.
    """
    by_name = {t.full_name: t for t in tables}
    order: dict[str, int] = {}
    open_now: set[str] = set()

    def visit(table: Table) -> None:
        if table.full_name in order or table.full_name in open_now:
            return
        open_now.add(table.full_name)
        for parent in (*table.parents, *sorted((declared or {}).get(table.full_name, ()))):
            if parent in by_name:
                visit(by_name[parent])
        order[table.full_name] = len(order)

    for table in sorted(tables, key=lambda t: t.full_name):
        visit(table)
    return order


@dataclass(frozen=True, kw_only=True)
class Plans:
    """newest: by full name, for the newest description. older: by fingerprint, for the others of a
    batch in which a table was altered. refused: by full name, why rows of a table must not be
    written or read, whatever an older version has prepared.
    """

    newest: Mapping[str, Plan]
    older: Mapping[str, Plan]
    refused: Mapping[str, Sequence[Finding]]

    @cached_property
    def bringing(self) -> Bringing:
        """The references whose parents are here for their rows (apply/ancestors.py)."""
        found: dict[str, list[tuple[Plan, Link]]] = {}
        for plan in self.newest.values():
            for link in plan.links:
                parent = self.newest.get(link.parent_name)
                if link.brings and parent is not None and parent.has_condition:
                    found.setdefault(link.parent_name, []).append((plan, link))
        return found

    @property
    def make_placeholders(self) -> bool:
        """Whether missing parents get rows that stand for them."""
        return any(link.placeholder for plan in self.newest.values() for link in plan.links)

    @property
    def unite(self) -> bool:
        """Whether rows of some table may turn out to be one."""
        rules = (plan.conflicts for plan in self.newest.values())
        return any(of is not None and of.same_by for of in rules)

    def refuse(self, name: str) -> None:
        """Raise SchemaConflict where the table is refused."""
        found = self.refused.get(name, ())
        if found:
            raise SchemaConflict(
                "cannot follow a reference: " + "; ".join(f"{f.where} {f.problem}" for f in found),
                hint="; ".join(dict.fromkeys(f.fix for f in found)),
            )


def plan_all(
    catalog: Catalog,
    server: Server,
    placement: Placement,
    known: Mapping[str, Table],
    older: Sequence[Table] = (),
    *,
    source: str = "",
) -> Plans:
    """A plan for every described table that the target has, and for older descriptions of them;
    source: its name.
    """
    newest = _plan_known(catalog, server, placement, known)
    before: dict[str, Plan] = {}
    for number, table in enumerate(older, start=len(known)):
        plans = _plan_known(catalog, server, placement, {**known, table.full_name: table})
        if table.full_name in plans:
            # A number of its own: the staging tables of two descriptions differ.
            before[table.fingerprint] = replace(plans[table.full_name], number=number, sets=[])
    refused = {
        n: [*untranslatable(t, known, placement), *unusable(t, known, placement)]
        for n, t in known.items()
    }
    for plan in (*newest.values(), *before.values()):
        plan.source_name = source
    return Plans(newest=newest, older=before, refused=refused)


def _plan_known(
    catalog: Catalog, server: Server, placement: Placement, known: Mapping[str, Table]
) -> dict[str, Plan]:
    parents = {name: leads_to(t, known, placement) for name, t in known.items()}
    order = ranks(list(known.values()), parents)
    tracked = set[str]().union(*parents.values())
    plans = {}
    for number, (name, table) in enumerate(sorted(known.items())):
        target = catalog.table(catalog.place(name))
        if target is not None:
            plans[name] = _plan(catalog, server, placement, known, table, target, number, order)
            plans[name].is_tracked = name in tracked and not plans[name].is_refereed
            plans[name].conflicts = conflict_rules(table, placement)
    _refer(plans)
    return plans


def _refer(plans: Mapping[str, Plan]) -> None:
    """Let plans know the links to their tables. Rows that the source's foreign keys delete with
    others count as referencing those, also where the target has no such key.
    """
    for plan in plans.values():
        for link in plan.links:
            parent = plans.get(link.parent_name)
            if parent is None:
                continue
            if link.steps is not None:
                parent.is_in_documents = True
                continue
            by = None if link.by is None else (link.by, str(link.value))
            columns, keys = (link.column,), (link.parent_key,)
            mine = Reference(child=plan.target, columns=columns, keys=keys, by=by)
            parent.links_here = [*parent.links_here, mine]
            if link.on_delete not in ("CASCADE", "SET NULL"):
                continue
            known = {(r.child.fullname, r.columns) for r in parent.references}
            if (plan.target.fullname, (link.column,)) not in known:
                parent.references = [*parent.references, mine]


def _plan(
    catalog: Catalog,
    server: Server,
    placement: Placement,
    known: Mapping[str, Table],
    table: Table,
    target: sa.Table,
    number: int,
    order: Mapping[str, int],
) -> Plan:
    place = catalog.place(table.full_name)
    own = own_key(table, placement)
    once, taken = exceptions.of(table.full_name, placement).own, []
    for column in wanted(table, placement):
        mine = target.c.get(column.name)
        is_left = column.name == own and table.identity != (own,)
        if mine is None or is_left or mine.computed is not None:
            continue
        family = family_of(mine.type)
        fields = server.fields(column.kind, family)
        taken.append(
            Taken(
                name=column.name,
                column=mine,
                kind=column.kind,
                family=family,
                fields=fields,
                once=column.name in once,
            )
        )
    names = {t.name for t in taken if not t.once}
    keys = {tuple(target.primary_key.columns.keys()), table.identity}
    return Plan(
        number=number,
        rank=order[table.full_name],
        source=table,
        target=target,
        taken=taken,
        own_key=own,
        links=_links(
            catalog, server, placement, known, table, target, {t.name for t in taken}, order
        ),
        references=catalog.references(place),
        uniques=[u for u in catalog.uniques(place) if u not in keys and names.issuperset(u)],
        is_guarded=catalog.is_guarded(place, table.identity),
        view=view_of(table, placement),
    )


def _links(
    catalog: Catalog,
    server: Server,
    placement: Placement,
    known: Mapping[str, Table],
    table: Table,
    target: sa.Table,
    names: set[str],
    order: Mapping[str, int],
) -> list[Link]:
    translated, bringing = (
        translated_keys(table, known, placement),
        with_ancestors(known, placement),
    )
    constrained = catalog.constrained(catalog.place(table.full_name))
    links: list[Link] = []
    for key in followed(table, known, placement):
        parent = known.get(key.parent)
        mine = catalog.table(catalog.place(key.parent)) if parent is not None else None
        if key.column not in names or parent is None or mine is None:
            continue
        told = key if isinstance(key, Declared) and not key.is_plain else None
        is_translated = told is not None or key == translated.get(key.column)
        in_documents = told is not None and told.path is not None
        follows = order[key.parent] >= order[table.full_name]
        nullable = bool(target.c[key.column].nullable) and not in_documents
        is_bound = is_translated or key.column in translated or key.column in constrained
        late = follows and nullable and is_bound
        # Those of a referee are pairs, not identities.
        policy = missing_parent(table, key.column, placement)
        is_looked_up = late or mine is target or parent.identity == (key.parent_column,)
        links.append(
            Link(
                column=key.column,
                parent_name=key.parent,
                parent=mine,
                parent_key=key.parent_column,
                parent_identity=parent.identity[0],
                identity_kind=parent.by_name[parent.identity[0]].kind,
                translated=is_translated,
                late=late,
                nullable=nullable,
                waits=nullable and policy == "null_then_fix",
                placeholder=policy == "placeholder" and told is None,
                on_delete=key.on_delete.upper(),
                named=None if is_looked_up or told else staged_as(server, parent, mine),
                key_kind=parent.by_name[key.parent_column].kind,
                by=told.by if told else None,
                value=told.value if told else None,
                steps=steps(told.path) if told and told.path else None,
                nth=sum(link.column == key.column for link in links) if told else 0,
                is_kept=told is not None and told.is_kept,
                brings=is_translated and told is None and table.full_name in bringing,
            )
        )
    # One column's are set together: all of them late, or none.
    waiting = {link.column for link in links if link.late and link.is_chosen}
    return [replace(k, late=k.late or (k.is_chosen and k.column in waiting)) for k in links]
