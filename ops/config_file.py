"""Reads headwater.toml: environment variables put in, checked, every mistake one sentence.

Invariant: no message shows a value of the file, which may be a secret; only keys and choices.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ops.config import Config, LogConfig, SourceConfig, TargetConfig
from ops.config_exceptions import ExceptionsConfig
from ops.config_match import LikelyConfig, MatchConfig
from ops.config_references import ReferenceConfig
from schemas.errors import Misconfigured
from schemas.finding import Finding

DEFAULT_PATH = Path("headwater.toml")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_SECRET = re.compile(r"passw|secret", re.IGNORECASE)
_TYPES = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": 'a list, e.g. ["shop.*"]',
    "mapping_type": "a table of keys and values",
    "dict_type": "a table of keys and values",
    "model_type": "a table of keys and values",
    "model_attributes_type": "a table of keys and values",
    "greater_than": "a whole number above 0",
    "string_too_short": "a longer text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid configuration; `warnings` are for preflight (passwords written in the file)."""

    config: Config
    path: Path
    warnings: tuple[Finding, ...] = ()


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read, complete and check the file; raises Misconfigured with the first mistake."""
    raw = _read(path)
    try:
        config = Config.model_validate(_substituted(raw, environ))
    except ValidationError as error:
        raise _misconfigured(error.errors()[0], path) from None
    _check_names(config)
    # The same log whatever folder headwater was started in.
    log = config.log.model_copy(update={"path": str(path.parent / config.log.path)})
    targets = {
        name: target.model_copy(update={"url": _beside(path, target.url)})
        for name, target in config.targets.items()
    }
    config = config.model_copy(update={"log": log, "targets": targets})
    return Loaded(config=config, path=path, warnings=tuple(_literal_passwords(raw)))


def _beside(path: Path, url: str) -> str:
    """A SQLite file's URL from the configuration file's folder; other URLs as they are."""
    parts = make_url(url)
    if parts.get_backend_name() != "sqlite" or parts.database in (None, "", ":memory:"):
        return url
    there = parts.set(database=str(path.parent / str(parts.database)))
    return there.render_as_string(hide_password=False)


def nearest(name: str, valid: list[str]) -> str:
    """`did you mean …?`, or all the choices."""
    close = get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"valid: {', '.join(sorted(valid))}" if valid else "none is configured"


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misconfigured(
            f"found no configuration file {path}",
            hint="write one (`headwater config --example` prints one), or name it with --config",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"cannot read the configuration file {path}: {type(error).__name__}",
            hint=f"make {path} a UTF-8 text file that this account may read",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(
            f"cannot read {path} as TOML: {error}", hint="mend the file at that line"
        ) from error
    return raw


def _substituted(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Put environment variables into strings.

    A variable that is a part of a `url` is percent-encoded, so that any password is one; a
    variable that is the whole of it stands as it is.
    """

    def value_of(variable: str, where: str) -> str:
        if variable in environ:
            return environ[variable]
        raise Misconfigured(
            f"found no environment variable {variable}, which {where} names",
            hint=f"set {variable} where headwater is started",
        )

    def put_in(text: str, where: str) -> str:
        whole = _VARIABLE.fullmatch(text)
        if whole or not where.endswith(".url"):
            return _VARIABLE.sub(lambda found: value_of(found[1], where), text)
        return _VARIABLE.sub(lambda found: quote(value_of(found[1], where), safe=""), text)

    result: dict[str, Any] = _mapped(raw, "", put_in)
    return result


def _mapped(value: Any, where: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(value, where)
    if isinstance(value, dict):
        return {k: _mapped(v, f"{where}.{k}".lstrip("."), change) for k, v in value.items()}
    if isinstance(value, list):
        return [_mapped(item, where, change) for item in value]
    return value


def _misconfigured(error: ErrorDetails, path: Path) -> Misconfigured:
    """One pydantic error as one sentence: the path, what is wrong, the nearest valid name."""
    steps = [str(step) for step in error["loc"] if step != "[key]"]
    where, kind = ".".join(steps), error["type"]
    if kind == "extra_forbidden":
        model = _model_at(steps[:-1])
        valid = list(model.model_fields)
        prefix = ".".join(steps[:-1])
        full = [f"{prefix}.{name}" if prefix else name for name in valid]
        return Misconfigured(f"found an unknown key {where} in {path}", hint=nearest(where, full))
    if kind == "string_pattern_mismatch":
        return Misconfigured(
            f"found the name {where} in {path}, which has other characters than a-z, 0-9 and _",
            hint="use at most 40 of these characters",
        )
    if kind == "missing":
        return Misconfigured(
            f"found no {where} in {path}", hint=f"add {steps[-1]} = …; {_about(steps)}"
        )
    if kind == "literal_error":
        return Misconfigured(
            f"found a value of {where} in {path} that is not one of its choices",
            hint=f"choose {error['ctx']['expected']}",
        )
    if kind == "value_error":
        return Misconfigured(
            f"{where or 'the file'}: {error['ctx']['error']}, in {path}", hint=_about(steps)
        )
    wanted = _TYPES.get(kind, error["msg"])
    found = "" if kind == "greater_than" else f" and found {_toml_type(error['input'])}"
    return Misconfigured(f"expected {wanted} for {where} in {path}{found}", hint=_about(steps))


def _toml_type(value: object) -> str:
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a fraction"}
    return next((text for kind, text in names.items() if type(value) is kind), "a list or a table")


def _model_at(steps: list[str]) -> type[BaseModel]:
    """The model whose keys stand below this path."""
    by_section: dict[str, type[BaseModel]] = {
        "log": LogConfig,
        "sources": SourceConfig,
        "targets": TargetConfig,
    }
    if steps[2:3] == ["exceptions"] and len(steps) > 3:
        return ExceptionsConfig
    if len(steps) > 3 and steps[2] in ("match", "references"):
        if steps[4:5] == ["likely"]:
            return LikelyConfig
        return MatchConfig if steps[2] == "match" else ReferenceConfig
    return by_section.get(steps[0], Config) if steps else Config


def _about(steps: list[str]) -> str:
    """The description of the key that the path leads to."""
    model = _model_at(steps)
    for step in steps:
        field = model.model_fields.get(step)
        if field is not None and field.description:
            return f"{step}: {field.description}"
    return "`headwater config --example` prints a complete example"


def _check_names(config: Config) -> None:
    for name, target in config.targets.items():
        if name in config.sources:
            raise Misconfigured(
                f"found {name} as a source and as a target", hint="give one of them another name"
            )
        # A machine that only applies may leave [sources] out: it needs no way to the source.
        if config.sources and target.source not in config.sources:
            raise Misconfigured(
                f"found no source {target.source}, which targets.{name}.source names",
                hint=nearest(target.source, list(config.sources)),
            )


def _literal_passwords(raw: dict[str, Any]) -> Iterator[Finding]:
    """Passwords that stand in the file itself."""
    found: list[str] = []

    def look(text: str, where: str) -> str:
        if _VARIABLE.search(text):
            return text
        if where.endswith(".url"):
            try:
                found.extend([where] if make_url(text).password else [])
            except ArgumentError:  # said by the models
                return text
        elif where.endswith(".prompt_token") or (
            where.startswith("log.options.") and _SECRET.search(where)
        ):
            found.append(where)
        return text

    _mapped(raw, "", look)
    for where in found:
        yield Finding(
            where=where,
            problem="has a password written in the file",
            fix="write ${NAME} in its place and set the environment variable NAME",
            refused=False,
        )
