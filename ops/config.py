"""The configuration: what the one TOML file may say, as frozen values.

Not here: reading the file and its errors (ops/config_file.py), the example and the reference
(ops/config_reference.py). Invariant: every key has a description, which is its documentation.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)
from sqlalchemy.engine import make_url

from apply.target import MissingParent, Placement
from capture.pace import Pace
from ops.config_conflicts import ConflictConfig
from ops.config_exceptions import ExceptionsConfig
from ops.config_identity import DerivedConfig, Identity, as_selected
from ops.config_match import MatchConfig, Texts
from ops.config_referee import RefereeConfig, refuse_unfit
from ops.config_references import ReferenceConfig
from ops.database_urls import TARGET_FAMILIES, family_of, place_of, refuse_twice
from schemas.selection import Selection

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")]

MIB = 1 << 20
_POLLING = {"version", "tombstone", "poll_seconds", "poll_window"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LogConfig(_Model):
    """Where the changes are kept: a file on this machine, or Kafka."""

    kind: Literal["sqlite", "kafka"] = Field(
        default="sqlite",
        description='"sqlite": a file, for one machine; "kafka": for more than one',
    )
    path: str = Field(
        default="headwater.db",
        description="the SQLite file; a relative path starts at the configuration file's folder",
    )
    servers: str | None = Field(
        default=None, description="Kafka's bootstrap servers, `host:port` separated by commas"
    )
    partitions: PositiveInt = Field(default=6, description="partitions of each new table's topic")
    replication: PositiveInt = Field(default=1, description="replication factor of new topics")
    retention_hours: PositiveInt = Field(
        default=168,
        description="how long rows are kept; a target away for longer must be copied anew",
    )
    max_record_bytes: PositiveInt = Field(
        default=16 * MIB, description="largest row that topics and producers take"
    )
    options: Mapping[str, str | int | float | bool] = Field(
        default_factory=dict,
        description='settings passed to librdkafka as they are, e.g. "security.protocol"',
    )

    @property
    def useless(self) -> set[str]:
        """Keys without effect for this kind of log."""
        if self.kind == "kafka":
            return {"path"}
        return {"servers", "partitions", "replication", "max_record_bytes", "options"}

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if self.kind == "kafka" and not self.servers:
            raise ValueError('needs servers = "host:9092" with kind = "kafka"')
        _refuse(self, self.useless, f'has no effect with kind = "{self.kind}"')
        return self


class SourceConfig(_Model):
    """One database to capture."""

    url: str = Field(
        description="where the database is; a password belongs in the environment: `${NAME}`"
    )
    kind: Literal["log", "polling"] = Field(
        default="log",
        description='"log": changes come from the database\'s own log; "polling": tables are read '
        "by a version column, where that log cannot be had",
    )
    version: Mapping[str, str] = Field(
        default_factory=dict,
        description="polling: the column that every change moves on, a whole number or an instant, "
        "per table pattern; default: the column updated_at",
    )
    tombstone: Mapping[str, str] = Field(
        default_factory=dict,
        description="polling: the column that says that a row is deleted (true, not 0, or not "
        "NULL), per table pattern; other deletes are not seen",
    )
    poll_seconds: PositiveFloat = Field(
        default=1.0, description="polling: from one poll to the next", strict=False
    )
    poll_window: PositiveFloat = Field(
        default=60.0,
        description="polling: each poll reads again what is so many seconds (of whole numbers: so "
        "many) older than the newest version: longer than any transaction takes to commit",
        strict=False,
    )
    include: Texts = Field(
        default=("*",),
        description="patterns `schema.table` with * and ?: which tables are captured",
    )
    exclude: Texts = Field(default=(), description="patterns `schema.table`; exclusion wins")
    exclude_columns: Texts = Field(
        default=(),
        description="patterns `schema.table.column`: columns that never leave the source",
    )
    identity: Mapping[str, Identity] = Field(
        default_factory=dict,
        description='what identifies a row, per table pattern: "primary_key", a column, or '
        'several columns as a natural key (`["country", "article"]`); default: the column sync_id '
        "(docs/identity.md). Not a key with a foreign key that targets translate. "
        "`{ derived = … }`, with one of these: a UUID that is computed of it, and stored at no "
        "source",
    )
    first_copy: Literal["rows", "identities", "none"] = Field(
        default="rows",
        description='what is copied of rows that are there already: the "rows"; their '
        '"identities" (targets that hold them already); "none"',
    )
    chunk_rows: PositiveInt = Field(
        default=10_000, description="at most so many rows in one read of a table that is copied"
    )
    chunk_bytes: PositiveInt = Field(
        default=8 * MIB, description="about so many bytes in one read of a table that is copied"
    )
    readers: PositiveInt = Field(
        default=2, description="so many reads of tables that are copied at once"
    )
    max_rate: PositiveInt | None = Field(
        default=None,
        description="at most so many rows of copied tables in a second, one read at a time "
        "(default: as fast as may be)",
    )
    batch_rows: PositiveInt = Field(
        default=10_000, description="a batch ends at the next commit after"
    )
    batch_bytes: PositiveInt = Field(default=8 * MIB, description="as batch_rows, in bytes")
    server_id: PositiveInt | None = Field(
        default=None,
        description="MySQL and MariaDB: the replica's number, unique among all replicas "
        "(default: drawn at each start)",
    )
    slot: str | None = Field(
        default=None, description="PostgreSQL: the replication slot (default: headwater_NAME)"
    )
    publication: str | None = Field(
        default=None, description="PostgreSQL: the publication (default: headwater_NAME)"
    )
    read_only: bool = Field(
        default=False,
        description="PostgreSQL: write nothing to the server, not even messages to its log; what "
        "prepare would make is made by somebody else. Copies are slow while nobody writes there",
    )
    cascades: Literal["refuse", "carry", "accept"] = Field(
        default="refuse",
        description="MySQL before 9.6 and MariaDB: foreign keys whose cascades the binlog does "
        'not show: "refuse" to start; "carry": targets do what ON DELETE did, and all others are '
        'refused; "accept" that targets may differ',
    )

    @property
    def family(self) -> str:
        """Give "postgres" or "mysql"."""
        return family_of(self.url)

    @property
    def pace(self) -> Pace:
        """How tables are copied."""
        return Pace(
            readers=self.readers,
            rows=self.chunk_rows,
            size_bytes=self.chunk_bytes,
            max_rate=self.max_rate,
        )

    @property
    def selection(self) -> Selection:
        """The part that says which tables and columns are captured."""
        return Selection(
            include=self.include,
            exclude=self.exclude,
            exclude_columns=self.exclude_columns,
            identity=as_selected(self.identity),
        )

    @property
    def useless(self) -> set[str]:
        """Keys without effect for this database."""
        postgres, mysql = {"slot", "publication", "read_only"}, {"server_id", "cascades"}
        if self.kind == "polling":
            return postgres | mysql
        return _POLLING | (postgres if self.family == "mysql" else mysql)

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if self.kind == "polling":
            _refuse(self, self.useless, 'has no effect with kind = "polling"')
            if any(isinstance(what, DerivedConfig) for what in self.identity.values()):
                raise ValueError('identity = { derived = … } is not had with kind = "polling"')
            return self
        _refuse(self, _POLLING, 'has an effect with kind = "polling" only')
        other = "PostgreSQL" if self.family == "mysql" else "MySQL and MariaDB"
        _refuse(self, self.useless, f"has an effect with {other} only")
        return self


class TargetConfig(_Model):
    """One database that receives a source's changes."""

    url: str = Field(
        description="where the database is; a password belongs in the environment: `${NAME}`. "
        "SQLite: `sqlite:///file.db`; a relative path starts at the configuration file's folder"
    )
    source: Name = Field(description="the name of the source whose changes arrive here")
    schemas: Mapping[str, str] = Field(
        default_factory=dict,
        description="source schema (MySQL: database) = target schema, where they differ",
    )
    tables: Mapping[str, str] = Field(
        default_factory=dict,
        description='"schema.table" of the source = "schema.table" here; wins over schemas',
    )
    exclude_columns: Texts = Field(
        default=(),
        description="patterns over source `schema.table.column` that this target leaves alone",
    )
    primary_keys: Literal["local", "copy"] = Field(
        default="local",
        description='"local": new rows get this database\'s own keys and foreign keys are '
        'translated; "copy": the source\'s keys are kept',
    )
    match: Mapping[str, MatchConfig] = Field(
        default_factory=dict,
        description="source `schema.table` = by what headwater enrol matches its rows with those "
        "that are here already",
    )
    identity: Mapping[str, Literal["referee"]] = Field(
        default_factory=dict,
        description='"referee", per table pattern: rows with keys of their own here are found '
        "through a mapping table, and nothing is added to either side (docs/referee.md)",
    )
    referee: RefereeConfig | None = Field(
        default=None,
        description="where rows are mapped together with other environments' (docs/referee.md)",
    )
    create: bool = Field(default=True, description="make missing tables; false: they must be there")
    parked_limit: NonNegativeInt = Field(
        default=1_000,
        description="so many changes that this database refuses may wait in it, for `headwater "
        "parked`, while all others are applied; 0: the first one stops it",
    )
    missing_parents: Mapping[str, MissingParent] = Field(
        default_factory=dict,
        description="what becomes of a row whose parent is not here, per pattern over source "
        '`schema.table.column`: "park" (the default), or "null_then_fix": the reference is NULL '
        'until the parent comes, or "placeholder": a row is made that stands for it '
        "(docs/parking.md)",
    )
    conflicts: Mapping[str, ConflictConfig] = Field(
        default_factory=dict,
        description="what happens to rows that were changed here too, per table pattern, the first "
        "that matches; other tables: the source's row is written, and nothing is looked for",
    )
    exceptions: Mapping[str, ExceptionsConfig] = Field(
        default_factory=dict,
        description='source "schema.table" = how that table differs here (docs/children.md)',
    )
    references: Mapping[str, ReferenceConfig] = Field(
        default_factory=dict,
        description='source "schema.table.column" = the "schema.table.column" that it refers to, '
        "where the source has no foreign key that says so: it is translated like one. Or what it "
        "refers to by another column's value, or at paths of its documents (docs/replicating.md)",
    )
    prompt_listen: str | None = Field(
        default=None,
        description="where `headwater apply NAME --on-prompt` listens for prompts: `host:port`",
    )
    prompt_url: str | None = Field(
        default=None,
        description="where `headwater push` prompts it: `http://host:port/poll`, or https",
    )
    prompt_token: str | None = Field(
        default=None,
        min_length=16,
        description="the secret that a prompt must bring, at least 16 characters: `${NAME}`",
    )

    @property
    def family(self) -> str:
        """Give "postgres", "mysql" or "sqlite"."""
        return family_of(self.url, TARGET_FAMILIES)

    @property
    def placement(self) -> Placement:
        """The part that says where rows land."""
        return Placement(
            schemas=self.schemas,
            tables=self.tables,
            exclude_columns=self.exclude_columns,
            primary_keys=self.primary_keys,
            create=self.create,
            parked_limit=self.parked_limit,
            conflicts={pattern: rules.rules for pattern, rules in self.conflicts.items()},
            missing_parents=self.missing_parents,
            exceptions={name: e.exceptions for name, e in self.exceptions.items()},
            references={name: r.declaration for name, r in self.references.items()},
            referees=tuple(self.identity),
            shared=self.referee.at if self.referee is not None else None,
        )

    @model_validator(mode="after")
    def _known(self) -> Self:
        family_of(self.url, TARGET_FAMILIES)
        return self

    @model_validator(mode="after")
    def _prompted(self) -> Self:
        if not self.prompt_token and (self.prompt_listen or self.prompt_url):
            raise ValueError("needs prompt_token with prompt_listen and with prompt_url")
        if self.prompt_listen and not re.fullmatch(r".*:[0-9]{1,5}", self.prompt_listen):
            raise ValueError("prompt_listen must be like 127.0.0.1:8130")
        if self.prompt_url and not re.match(r"https?://[^/]", self.prompt_url):
            raise ValueError("prompt_url must be like http://branch1.internal:8130/poll")
        return self


class Config(_Model):
    """The whole file."""

    log: LogConfig = Field(default_factory=LogConfig, description="where changes are kept")
    sources: Mapping[Name, SourceConfig] = Field(
        default_factory=dict, description="databases to capture, by name"
    )
    targets: Mapping[Name, TargetConfig] = Field(
        default_factory=dict, description="databases that receive changes, by name"
    )

    @model_validator(mode="after")
    def _not_itself(self) -> Self:
        for name, target in self.targets.items():
            source = self.sources.get(target.source)
            if source is not None and _is_itself(source, target):
                raise ValueError(
                    f"targets.{name} would write into the tables that it is fed from: name another "
                    "database, or map the schema to another one with schemas"
                )
        return self

    @model_validator(mode="after")
    def _one_checkpoint_each(self) -> Self:
        refuse_twice({name: (t.source, t.url) for name, t in self.targets.items()})
        return self

    @model_validator(mode="after")
    def _refereed(self) -> Self:
        refuse_unfit(self.targets, self.sources)
        return self

    def targets_of(self, source: str) -> list[str]:
        """Names of the targets that receive this source's changes."""
        return [name for name, target in self.targets.items() if target.source == source]


def _is_itself(source: SourceConfig, target: TargetConfig) -> bool:
    """Whether rows would land, unmapped, where they come from."""
    here, there = make_url(source.url), make_url(target.url)
    if source.family != target.family or target.schemas or target.tables:
        return False
    if place_of(source.url)[:2] != place_of(target.url)[:2]:
        return False
    if target.family == "postgres":
        return here.database == there.database
    return source.selection.wants(there.database or "", "any")


def _refuse(model: BaseModel, keys: set[str], why: str) -> None:
    """A key without effect is an error: its author meant something by it."""
    for key in sorted(keys & model.model_fields_set):
        raise ValueError(f"{key} {why}")
