"""The configuration file: what it accepts, and that every mistake is one sentence that helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ops.commands_setup import hidden
from ops.config_file import Loaded, load
from ops.config_reference import example, keys, reference
from schemas.errors import Misconfigured

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
SOURCE = '[sources.shop]\nurl = "mysql://reader:${PASSWORD}@db/"\n'
REFERENCES = "[targets.t]\nurl = 'mysql://h'\nsource = 'shop'\n[targets.t.references]\n"
ENVIRON = {"PASSWORD": "s3cret"}


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Loaded:
    path = folder / "headwater.toml"
    path.write_text(text)
    return load(path, ENVIRON if environ is None else environ)


def test_an_empty_file_is_a_configuration_with_the_embedded_log(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").config.log.kind == "sqlite"


def test_the_log_stands_beside_the_file_whatever_the_working_directory(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").config.log.path == str(tmp_path / "headwater.db")


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        (SOURCE + "chunk_row = 1", "sources.shop.chunk_row", "sources.shop.chunk_rows"),
        (SOURCE + "includes = []", "sources.shop.includes", "sources.shop.include"),
        ("[source.shop]\nurl = 'mysql://db'", "source", "sources"),
        ("[log]\nknd = 'kafka'", "log.knd", "log.kind"),
        ("[targets.t]\nurl = 'mysql://h'\nsource='a'\nschema = {}", "targets.t.schema", "schemas"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(
    tmp_path: Path, text: str, key: str, near: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        loaded(tmp_path, text)
    assert f"unknown key {key} " in str(caught.value)
    assert caught.value.hint.startswith("did you mean ")
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SOURCE + "chunk_rows = 'many'", ["a whole number", "sources.shop.chunk_rows", "text"]),
        (SOURCE + "chunk_rows = 0", ["above 0", "sources.shop.chunk_rows"]),
        (SOURCE + "include = 'shop.*'", ["a list", "sources.shop.include"]),
        (REFERENCES + "'a.b.c' = 'a.b'", ["targets.t.references.a.b.c", "is not like"]),
        (REFERENCES + "'a.b.c' = { by = 'kind', to = 'a.b.id' }", ["references", "go together"]),
        (REFERENCES + "'a.b.c' = { to = { A = 'a.b.id' } }", ["references", "go together"]),
        (REFERENCES + "'a.b.c' = {}", ["references", "either `to` or `at`"]),
        (REFERENCES + "'a.b.c' = { at = { x = 'a.b.id' } }", ["references", "no path like"]),
        (REFERENCES + "'a.b.c' = { at = { '$.x' = 5 } }", ["references", "text", "whole number"]),
        (SOURCE + "first_copy = 'row'", ["sources.shop.first_copy", "one of its choices"]),
        ("[targets.t]\nurl = 'mysql://h'", ["no targets.t.source"]),
        ("[sources.a]\nurl = 'oracle://h'", ["sources.a", "url must begin with"]),
        ("[sources.a]\nurl = 'h'", ["sources.a", "url must be like"]),
        ("[sources.a]\nurl = 'sqlite:///a.db'", ["sources.a", "url must begin with"]),
        ("[targets.a]\nurl='oracle://h'\nsource='b'", ["targets.a", "or sqlite://"]),
        ("[sources.A-1]\nurl = 'mysql://h'", ["name sources.A-1", "a-z"]),
        (SOURCE + "slot = 'x'", ["slot", "PostgreSQL only"]),
        ("[sources.a]\nurl = 'postgresql://h/d'\nserver_id = 7", ["server_id", "MySQL"]),
        ("[log]\nkind = 'kafka'", ["log", "servers"]),
        ("[log]\npartitions = 3", ["partitions", "no effect"]),
        (SOURCE + "[targets.shop]\nurl='mysql://h'\nsource='shop'", ["shop", "as a target"]),
        ("x = [", ["TOML"]),
    ],
)
def test_a_mistake_is_one_sentence_with_its_path(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(Misconfigured) as caught:
        loaded(tmp_path, text)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message
    assert caught.value.hint
    assert ENVIRON["PASSWORD"] not in message + caught.value.hint


def test_a_target_of_an_unknown_source_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no source shp") as caught:
        loaded(tmp_path, SOURCE + "[targets.t]\nurl = 'mysql://h'\nsource = 'shp'")
    assert caught.value.hint == "did you mean shop?"


def test_a_machine_that_only_applies_needs_no_sources(tmp_path: Path) -> None:
    config = loaded(tmp_path, "[targets.t]\nurl = 'mysql://h'\nsource = 'shop'").config
    assert config.targets["t"].source == "shop"


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path / "none.toml")
    assert "headwater config --example" in caught.value.hint


def test_a_missing_environment_variable_is_named_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"variable PASSWORD, which sources\.shop\.url names"):
        loaded(tmp_path, SOURCE, {})


def test_a_password_of_any_characters_survives_in_a_url(tmp_path: Path) -> None:
    config = loaded(tmp_path, SOURCE, {"PASSWORD": "p@ss/w:rd?#%&"}).config
    assert make_url(config.sources["shop"].url).password == "p@ss/w:rd?#%&"


def test_a_variable_that_is_the_whole_url_stands_as_it_is(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[sources.a]\nurl = "${U}"', {"U": "mysql://a:b%40@h/"}).config
    assert config.sources["a"].url == "mysql://a:b%40@h/"


def test_a_password_in_the_file_is_a_warning_and_not_an_error(tmp_path: Path) -> None:
    text = SOURCE + "[sources.b]\nurl = 'mysql://u:plain@h/'\n"
    (warning,) = loaded(tmp_path, text).warnings
    assert (warning.where, warning.refused) == ("sources.b.url", False)
    assert "plain" not in warning.problem + warning.fix


def test_the_effective_configuration_hides_passwords(tmp_path: Path) -> None:
    kafka = (
        '[log]\nkind = "kafka"\nservers = "h:1"\n[log.options]\n"sasl.password" = "${PASSWORD}"\n'
    )
    shown = str(hidden(loaded(tmp_path, kafka + SOURCE).config))
    assert "s3cret" not in shown
    assert "***@db" in shown


def test_the_example_is_valid(tmp_path: Path) -> None:
    config = loaded(tmp_path, example(), {"SHOP_PASSWORD": "a", "BRANCH_PASSWORD": "b"}).config
    assert config.targets_of("shop") == ["branch"]


def test_values_cannot_be_changed_after_loading(tmp_path: Path) -> None:
    config = loaded(tmp_path, SOURCE).config
    with pytest.raises(ValueError, match="frozen"):
        config.sources["shop"].chunk_rows = 1


def test_every_key_is_described() -> None:
    assert [line for line in reference().splitlines() if line.endswith("| None |")] == []


def test_the_documentation_has_every_key_as_the_models_describe_it() -> None:
    text = DOCS.read_text()
    assert [key for key in keys() if f"`{key}`" not in text] == []
    assert reference().strip() in text, (
        "docs/configuration.md is older than the models: "
        "replace its tables by what ops.config_reference.reference() gives"
    )


@pytest.mark.parametrize(
    ("source", "target", "is_refused"),
    [
        ("mysql://db/shop", "mysql://db/shop", True),
        ("mysql://db/shop", "mariadb://db/branch", False),
        ("postgresql://db/shop", "postgresql://db/shop", True),
        ("postgresql://db/shop", "postgresql://db/branch", False),
        ("mysql://db/shop", "postgresql://db/shop", False),
    ],
)
def test_a_target_is_never_its_own_source(
    tmp_path: Path, source: str, target: str, is_refused: bool
) -> None:
    text = f'[sources.a]\nurl = "{source}"\ninclude = ["shop.*", "public.*"]\n'
    text += f'[targets.b]\nsource = "a"\nurl = "{target}"\n'
    if not is_refused:
        loaded(tmp_path, text)
        return
    with pytest.raises(Misconfigured, match="fed from"):
        loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("source", "url", "is_refused"),
    [
        ("a", "postgresql://other:p@localhost/branch?connect_timeout=3", True),
        ("a", "postgresql://u@127.0.0.1:5433/branch", False),
        ("a", "postgresql://u@127.0.0.1/archive", False),
        ("a", "mysql://u@127.0.0.1/branch", False),
        ("b", "postgresql://u@127.0.0.1/branch", False),
        ("a", "sqlite:///branch", False),
    ],
)
def test_two_targets_never_share_a_checkpoint(
    tmp_path: Path, source: str, url: str, is_refused: bool
) -> None:
    text = f"""
        [targets.first]
        source = "a"
        url = "postgresql://u@127.0.0.1:5432/branch"
        schemas = {{ shop = "one" }}
        [targets.second]
        source = "{source}"
        url = "{url}"
        schemas = {{ shop = "two" }}
    """
    if not is_refused:
        loaded(tmp_path, text)
        return
    with pytest.raises(Misconfigured, match=r"targets.first and targets.second bring source a"):
        loaded(tmp_path, text)


def test_a_sqlite_file_stands_beside_the_configuration_file(tmp_path: Path) -> None:
    target = '[targets.{}]\nsource = "a"\nurl = "sqlite:///{}"\n'
    text = target.format("near", "copy of 100%25.db") + target.format("far", "/var/lib/copy.db")
    targets = loaded(tmp_path, text).config.targets
    assert make_url(targets["near"].url).database == str(tmp_path / "copy of 100%.db")
    assert make_url(targets["far"].url).database == "/var/lib/copy.db"
    again = target.format("again", "./copy.db") + target.format("once", "copy.db")
    with pytest.raises(Misconfigured, match=r"bring source a into one database"):
        loaded(tmp_path, again)
