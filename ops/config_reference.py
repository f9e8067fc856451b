"""The configuration's documentation: the example, and the reference made from the models."""

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ops.config import LogConfig, SourceConfig, TargetConfig
from ops.config_conflicts import ConflictConfig
from ops.config_exceptions import ExceptionsConfig
from ops.config_match import LikelyConfig, MatchConfig
from ops.config_referee import RefereeConfig
from ops.config_references import ReferenceConfig

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("log", LogConfig),
    ("sources.NAME", SourceConfig),
    ("targets.NAME", TargetConfig),
    ("targets.NAME.conflicts.PATTERN", ConflictConfig),
    ('targets.NAME.exceptions."TABLE"', ExceptionsConfig),
    ('targets.NAME.match."schema.table"', MatchConfig),
    ('targets.NAME.match."schema.table".likely', LikelyConfig),
    ('targets.NAME.references."schema.table.column"', ReferenceConfig),
    ("targets.NAME.referee", RefereeConfig),
)

EXAMPLE = """\
# Headwater: one file says what is copied from where to where.
# ${NAME} in a text is replaced by the environment variable NAME: keep passwords there.

[log]
kind = "sqlite"            # one machine; for more than one: "kafka"
path = "headwater.db"      # relative to this file
# kind = "kafka"
# servers = "kafka1:9092,kafka2:9092"
# partitions = 6
# replication = 3
# retention_hours = 168
# [log.options]            # passed to librdkafka as they are
# "security.protocol" = "SASL_SSL"
# "sasl.mechanism" = "SCRAM-SHA-512"
# "sasl.username" = "headwater"
# "sasl.password" = "${KAFKA_PASSWORD}"

[sources.shop]             # a name of your own: a-z, 0-9, _
url = "mysql://headwater:${SHOP_PASSWORD}@db.example.com:3306/"
include = ["shop.*"]       # schema.table, with * and ?
exclude = ["shop.sessions"]
exclude_columns = ["shop.users.password_hash"]
first_copy = "rows"        # of what is there already: "rows", "identities" or "none"

[sources.shop.identity]    # rows are matched by the column sync_id, unless said otherwise
"shop.countries" = "primary_key"

[targets.branch]
url = "postgresql://headwater:${BRANCH_PASSWORD}@branch.example.com:5432/branch"
source = "shop"
exclude_columns = ["shop.users.notes"]

[targets.branch.schemas]   # source schema (MySQL: database) = target schema
shop = "public"

[targets.branch.tables]    # single tables; wins over schemas
"shop.order" = "public.orders"

[targets.branch.match."shop.users"]    # for headwater enrol: rows that are there already
keys = [["email"], ["name", "birth_date"]]
normalise = { email = ["trim", "lower"], name = ["spaces", "lower", "nfc"] }
"""


def example() -> str:
    """A complete, commented file."""
    return EXAMPLE


def reference() -> str:
    """Markdown tables of every key: what docs/configuration.md holds between its markers."""
    return "\n".join(line for name, model in SECTIONS for line in _section(name, model))


def keys() -> list[str]:
    """Every key as the reference names it, e.g. `sources.NAME.chunk_rows`."""
    return [f"{name}.{key}" for name, model in SECTIONS for key in model.model_fields]


def _section(name: str, model: BaseModel | type[BaseModel]) -> Iterator[str]:
    yield f"### `[{name}]`\n"
    yield "| key | default | what it says |"
    yield "|---|---|---|"
    for key, field in model.model_fields.items():
        yield f"| `{name}.{key}` | {_default(field)} | {field.description} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ({}, ()):
        return "-"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("'", '"')
