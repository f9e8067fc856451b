"""Twelve tables with foreign keys of every shape, as three databases have them who never spoke to
each other: other primary keys, rows in common, doubles, and rows of one's own. And somebody who
writes into the first of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.faults.pipeline import scheme
from tests.services.database import Database

KEY = {"postgresql": "serial primary key"}
MYSQL_KEY = "int auto_increment primary key"

TABLES = {
    "countries": "code varchar(9) not null unique, name varchar(50)",
    "users": "email varchar(80), name varchar(50) not null, manager_id int, country_id int, "
    "foreign key (manager_id) references users (id), "
    "foreign key (country_id) references countries (id)",
    "profiles": "user_id int not null unique, bio varchar(200), "
    "foreign key (user_id) references users (id) on delete cascade",
    "addresses": "user_id int not null, street varchar(80) not null, country_code varchar(9), "
    "foreign key (user_id) references users (id) on delete cascade, "
    "foreign key (country_code) references countries (code)",
    "categories": "name varchar(50) not null unique, parent_id int, "
    "foreign key (parent_id) references categories (id)",
    "products": "code varchar(20) not null unique, price int not null, category_id int, "
    "foreign key (category_id) references categories (id) on delete set null",
    "orders": "number int not null unique, user_id int not null, address_id int, profile_of int, "
    "foreign key (user_id) references users (id), "
    "foreign key (profile_of) references profiles (user_id), "
    "foreign key (address_id) references addresses (id) on delete set null",
    "tags": "word varchar(50) not null unique, owner_type varchar(9), owner_id int",
    "product_tags": "product_id int not null, tag_id int not null, unique (product_id, tag_id), "
    "foreign key (product_id) references products (id) on delete cascade, "
    "foreign key (tag_id) references tags (id) on delete cascade",
    "order_lines": "order_id int not null, line int not null, product_id int not null, amount int, "
    "tag_id int, "
    "unique (order_id, line), foreign key (order_id) references orders (id) on delete cascade, "
    "foreign key (product_id, tag_id) references product_tags (product_id, tag_id), "
    "foreign key (product_id) references products (id)",
    "teams": "name varchar(50) not null unique, lead_id int, facts varchar(80)",
    "members": "team_id int, user_id int not null unique, role varchar(20), "
    "foreign key (team_id) references teams (id), "
    "foreign key (user_id) references users (id) on delete cascade",
}
PAIRS = ("owner_type", "owner_id")
CYCLE = "alter table teams add foreign key (lead_id) references members (id) on delete set null"

REFERENCES = {
    "countries": [("users", "country_id")],
    "users": [
        ("users", "manager_id"),
        ("profiles", "user_id"),
        ("addresses", "user_id"),
        ("orders", "user_id"),
        ("orders", "profile_of"),
        ("members", "user_id"),
    ],
    "addresses": [("orders", "address_id")],
    "categories": [("categories", "parent_id"), ("products", "category_id")],
    "products": [("order_lines", "product_id"), ("product_tags", "product_id")],
    "orders": [("order_lines", "order_id")],
    "tags": [("product_tags", "tag_id"), ("order_lines", "tag_id")],
    "teams": [("members", "team_id")],
    "members": [("teams", "lead_id")],
}
"""By table, who references it."""

DECLARED: Mapping[str, Mapping[str, Any]] = {
    "tags.owner_id": {"by": "owner_type", "to": {"user": "users.id", "product": "products.id"}},
    "teams.facts": {"at": {"$.user": "users.id", "$.products[*]": "products.id"}},
}
"""What no foreign key says."""

MATCH: Mapping[str, Mapping[str, Any]] = {
    "countries": {"keys": [["code"]]},
    "users": {"keys": [["email"]], "normalise": {"email": ["trim", "lower"]}},
    "profiles": {"keys": [["user_id"]]},
    "addresses": {"keys": [["user_id", "street"]]},
    "categories": {"keys": [["name"]]},
    "products": {"keys": [["code"]]},
    "orders": {"keys": [["number"]]},
    "order_lines": {"keys": [["order_id", "line"]]},
    "tags": {"keys": [["word"]]},
    "product_tags": {"keys": [["product_id", "tag_id"]]},
    "teams": {"keys": [["name"]]},
    "members": {"keys": [["user_id"]]},
}


def make(database: Database) -> None:
    """The twelve tables, empty."""
    kind = scheme(database)
    for name, columns in TABLES.items():
        database.execute(f"create table {name} (id {KEY.get(kind, MYSQL_KEY)}, {columns})")
    database.execute(CYCLE)
    if kind == "postgresql":
        for name in TABLES:
            database.execute(f"alter table {name} replica identity full")


def _facts(user: object, products: Iterable[object]) -> str:
    return f'{{"user": {user}, "products": [{", ".join(map(str, products))}], "colour": "red"}}'


def fill(database: Database, rng: random.Random, share: float, shift: int) -> None:
    """Rows that others have too, a share of them, under keys of one's own."""

    def insert(table: str, *rows: Mapping[str, Any]) -> None:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            for row in rows:
                names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
                cursor.execute(f"insert into {table} ({names}) values ({marks})", [*row.values()])

    def own(number: int) -> int:
        return shift + 1 + (number * 7) % 1009

    def some(numbers: range) -> list[int]:
        found = [n for n in numbers if rng.random() < share]
        rng.shuffle(found)
        return found

    insert("countries", *({"id": own(n), "code": f"c{n}", "name": f"C {n}"} for n in range(5)))
    users = some(range(40))
    insert(
        "users",
        *(
            {"id": own(n), "email": f"u{n}@Example.org", "name": f"U {n}", "country_id": own(n % 5)}
            for n in users
        ),
    )
    for n in users:
        if n // 2 in users:
            database.execute(f"update users set manager_id = {own(n // 2)} where id = {own(n)}")
    insert("profiles", *({"user_id": own(n), "bio": f"b{n}"} for n in users if n % 2))
    insert(
        "addresses",
        *(
            {"id": own(n), "user_id": own(n), "street": f"s{n}", "country_code": f"c{n % 5}"}
            for n in users
        ),
    )
    insert("categories", {"id": own(0), "name": "k0"})
    for n in range(1, 8):
        insert("categories", {"id": own(n), "name": f"k{n}", "parent_id": own(n // 2)})
    products = some(range(30))
    insert(
        "products",
        *({"id": own(n), "code": f"p{n}", "price": n, "category_id": own(n % 8)} for n in products),
    )
    insert(
        "tags",
        *(
            {"id": own(n), "word": f"w{n}", "owner_type": "user", "owner_id": own(users[n])}
            for n in range(3)
        ),
        *(
            {"id": own(n), "word": f"w{n}", "owner_type": "product", "owner_id": own(products[n])}
            for n in range(3, 6)
        ),
    )
    insert(
        "product_tags",
        *({"product_id": own(p), "tag_id": own(p % 6)} for p in products if p % 3),
    )
    for n in some(range(40)):
        user = users[n % len(users)]
        place = {"id": own(n), "number": n, "user_id": own(user), "address_id": own(user)}
        insert("orders", {**place, "profile_of": own(user) if user % 2 else None})
        insert(
            "order_lines",
            *(
                {"order_id": own(n), "line": i, "product_id": own(p), "amount": 1}
                | ({"tag_id": own(p % 6)} if p % 3 else {})
                for i, p in enumerate(products[:3])
            ),
        )
    insert(
        "teams",
        *(
            {"id": own(n), "name": f"t{n}"}
            | {"facts": _facts(own(users[n]), [own(products[n]), own(products[n + 1])])}
            for n in range(4)
        ),
    )
    insert(
        "members",
        *({"id": own(n), "team_id": own(n % 4), "user_id": own(n), "role": "r"} for n in users),
    )
    for n in range(4):
        found = [u for u in users if u % 4 == n]
        if found:
            database.execute(f"update teams set lead_id = {own(found[0])} where id = {own(n)}")
    if scheme(database) == "postgresql":
        for name in TABLES:
            database.execute(f"select setval('{name}_id_seq', {shift + 5000})")


@dataclass(frozen=True, slots=True)
class Own:
    """How a child's rows are told from the authority's: by the column `key`, which is NULL in its
    own, or, where nothing was added to its tables, by pairs of that column of the authority's.
    """

    key: str
    is_paired: bool = False

    def rows(self, database: Database) -> dict[str, list[tuple[Any, ...]]]:
        """What is only there, by table."""
        found = {}
        for table in TABLES:
            rows = database.query(f"select x.* from {table} x where {self._is_own(table, 'x')}")
            found[table] = sorted(rows, key=str)
        return found

    def holders(self, database: Database, table: str, key: object) -> list[tuple[str, bool]]:
        """The rows that reference this one of the authority's: their tables, and whether they are
        the child's own.
        """
        that = self._pair(table, "p", f"and r.source_key = {key}")
        is_it = that if self.is_paired else f"p.{self.key} = '{key}'"
        return [
            (child, bool(is_own))
            for child, column in REFERENCES.get(table, ())
            for (is_own,) in database.query(
                f"select case when {self._is_own(child, 'c')} then 1 else 0 end from {child} c "
                f"join {table} p on p.id = c.{column} where {is_it}"
            )
        ]

    def _is_own(self, table: str, name: str) -> str:
        if self.is_paired:
            return f"not {self._pair(table, name)}"
        return f"{name}.{self.key} is null"

    def _pair(self, table: str, name: str, more: str = "") -> str:
        return (
            f"exists (select 1 from headwater_referee r where r.table_name like '%.{table}' "
            f"and r.live = 1 and r.local_key = {name}.id {more})"
        )


def own_rows(database: Database) -> None:
    """Rows that nobody else has, and two users with one e-mail."""
    shared = database.query("select email from users order by id limit 1")[0][0]
    for name, email in (("double", shared), ("only here", "here@example.org")):
        database.execute(f"insert into users (email, name) values ('{email}', '{name}')")
    ((mine,),) = database.query("select id from users where name = 'only here'")
    database.execute(f"insert into addresses (user_id, street) values ({mine}, 'ours')")
    database.execute("insert into tags (word) values ('only here')")


class Writer:
    """Random changes of every table; each is a transaction that the database may refuse."""

    def __init__(self, database: Database, seed: int) -> None:
        self._rng, self._database = random.Random(seed), database
        self._connection = database.connect()
        self._next = 10_000
        self.done = 0

    def close(self) -> None:
        self._connection.close()

    def change(self) -> None:
        """One change; what a foreign or unique key refuses has not happened."""
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(self._statement(cursor))
                self.done += cursor.rowcount
            except Exception as error:  # the drivers have errors of their own for the same thing
                if "onstraint" not in str(error) and "uplicate" not in str(error):
                    raise

    def _any(self, cursor: Any, table: str, column: str = "id") -> str:
        cursor.execute(f"select {column} from {table}")
        found = [row[0] for row in cursor.fetchall()]
        if not found:
            return "null"
        one = self._rng.choice(found)
        return f"'{one}'" if isinstance(one, str) else str(one)

    def _product_and_tag(self, cursor: Any) -> dict[str, str]:
        if self._rng.random() < 0.5:
            return {"product_id": self._any(cursor, "products"), "tag_id": "null"}
        cursor.execute("select product_id, tag_id from product_tags")
        product, tag = self._rng.choice(cursor.fetchall())
        return {"product_id": str(product), "tag_id": str(tag)}

    def _owner(self, cursor: Any) -> dict[str, str]:
        kind = self._rng.choice(["user", "product"])
        return {"owner_type": f"'{kind}'", "owner_id": self._any(cursor, f"{kind}s")}

    def _is_declared(self, cursor: Any, table: str, one: str) -> bool:
        cursor.execute("select owner_id from tags where owner_type = %s", [table.rstrip("s")])
        found = {str(row[0]) for row in cursor.fetchall()}
        cursor.execute("select facts from teams where facts is not null")
        for (text,) in cursor.fetchall():
            facts = json.loads(text)
            found.update(map(str, facts["products"] if table == "products" else [facts["user"]]))
        return table in ("users", "products") and one in found

    def _statement(self, cursor: Any) -> str:
        rng, self._next = self._rng, self._next + 1
        n, table = self._next, rng.choice(list(TABLES))
        one = self._any(cursor, table)
        if rng.random() < 0.15:
            # What no foreign key says, no database keeps.
            where = "1 = 0" if self._is_declared(cursor, table, one) else f"id = {one}"
            return f"delete from {table} where {where}"

        def any_(of: str) -> str:
            return self._any(cursor, of)

        changes = {
            "countries": lambda: {"code": f"'c{n}'", "name": f"'C {n}'"},
            "users": lambda: {
                "email": f"'u{n}@example.org'",
                "name": f"'U {n}'",
                "manager_id": any_("users"),
                "country_id": any_("countries"),
            },
            "profiles": lambda: {"user_id": any_("users"), "bio": f"'b{n}'"},
            "addresses": lambda: {
                "user_id": any_("users"),
                "street": f"'s{n}'",
                "country_code": self._any(cursor, "countries", "code"),
            },
            "categories": lambda: {"name": f"'k{n}'", "parent_id": any_("categories")},
            "products": lambda: {
                "code": f"'p{n}'",
                "price": str(n % 100),
                "category_id": any_("categories"),
            },
            "orders": lambda: {
                "number": str(n),
                "user_id": any_("users"),
                "address_id": any_("addresses"),
                "profile_of": self._any(cursor, "profiles", "user_id"),
            },
            "order_lines": lambda: {
                "order_id": any_("orders"),
                "line": str(n),
                "amount": str(n % 7),
                **self._product_and_tag(cursor),
            },
            "tags": lambda: {"word": f"'w{n}'", **self._owner(cursor)},
            "product_tags": lambda: {"product_id": any_("products"), "tag_id": any_("tags")},
            "teams": lambda: {
                "name": f"'t{n}'",
                "lead_id": any_("members"),
                "facts": f"'{_facts(any_('users'), [any_('products'), any_('products')])}'",
            },
            "members": lambda: {
                "team_id": any_("teams"),
                "user_id": any_("users"),
                "role": f"'r{n % 5}'",
            },
        }
        values = changes[table]()
        if rng.random() < 0.5:
            return (
                f"insert into {table} ({', '.join(values)}) values ({', '.join(values.values())})"
            )
        name = rng.choice(list(values))
        # One column, or those that mean something together.
        names = PAIRS if name in PAIRS else [name]
        sets = ", ".join(f"{name} = {values[name]}" for name in names)
        return f"update {table} set {sets} where id = {one}"
