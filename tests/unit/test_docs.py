"""The documentation keeps up with the code: what users meet stands in it, and links lead on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ops.cli import app
from ops.config_file import load
from ops.config_reference import keys, reference
from schemas import errors
from schemas.faults import POINTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("schemas", "capture", "transport", "apply", "ops")
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("deploy/*.md")])

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def docs() -> str:
    return "\n".join(map(text_of, PAGES))


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    return text_of(page).split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]


def links() -> Iterator[tuple[Path, str]]:
    """Every link that is not to another site."""
    for page in PAGES:
        for target in _LINK.findall(_CODE.sub("", _FENCE.sub("", text_of(page)))):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub and its like give to headings; repeated ones are numbered."""
    found: dict[str, int] = {}
    names = []
    for heading in _HEADING.findall(_FENCE.sub("", text_of(page))):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        seen = found.get(plain, 0)
        found[plain] = seen + 1
        names.append(f"{plain}-{seen}" if seen else plain)
    return frozenset(names)


@cache
def code_variables() -> frozenset[str]:
    """The environment variables that the program itself reads or sets."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found.update(re.findall(r"\bHEADWATER_[A-Z][A-Z_]*\b", path.read_text()))
    return frozenset(found)


@cache
def variables_of_tests() -> frozenset[str]:
    """The environment variables that the tests read."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            quoted = re.findall(r"[\"'](HEADWATER_[A-Z][A-Z0-9_]*[A-Z0-9])[\"']", path.read_text())
            found.update(quoted)
    return frozenset(found) - code_variables()


GROUPS: list[Any] = app.registered_groups
COMMANDS = {
    str(command.name or getattr(command.callback, "__name__", "")).replace("_", "-"): command
    for command in app.registered_commands
} | {group.typer_instance.info.name: group for group in GROUPS}


def options_of(command: str) -> list[str]:
    """Every long option of a command, as its --help names them."""
    every: Any = typer.main.get_command(app)
    chosen = every.commands[command]
    found: list[str] = []
    for each in [chosen, *getattr(chosen, "commands", {}).values()]:
        for parameter in each.params:
            found += [name for name in parameter.opts if name.startswith("--")]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_section_with_every_option(command: str) -> None:
    page = DOCS / "commands.md"
    assert f"\n### `{command}`\n" in text_of(page)
    everywhere = {"--config", "--json", "--debug", "--help"}
    own = section(page, f"### `{command}`")
    missing = [name for name in options_of(command) if name not in everywhere and name not in own]
    assert missing == []


def test_no_section_is_of_a_command_that_is_gone() -> None:
    described = re.findall(r"^### `([a-z-]+)`$", text_of(DOCS / "commands.md"), re.MULTILINE)
    assert sorted(described) == sorted(COMMANDS)


def test_commands_that_pages_tell_a_reader_to_run_exist() -> None:
    run = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(
            r"(?:^|[`&] ?)headwater ([a-z]+(?:-[a-z]+)*)\b", text_of(page), re.MULTILINE
        )
    }
    assert [(page, name) for page, name in sorted(run) if name not in COMMANDS] == []


@pytest.mark.parametrize("key", keys())
def test_every_configuration_key_is_in_the_reference(key: str) -> None:
    assert f"| `{key}` |" in text_of(DOCS / "configuration.md")


def test_the_reference_is_the_one_that_the_models_give() -> None:
    assert reference().strip() in text_of(DOCS / "configuration.md")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.HeadwaterError)
    ],
)
def test_every_error_says_what_to_do_and_its_exit_code(name: str) -> None:
    code = getattr(errors, name).exit_code
    assert f"\n| `{name}` | {code} |" in text_of(DOCS / "commands.md")


@pytest.mark.parametrize("page", ["commands.md", "configuration.md"])
def test_every_exit_code_of_an_error_is_in_the_table(page: str) -> None:
    table = section(DOCS / page, "## Exit codes")
    codes = {
        error.exit_code
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.HeadwaterError)
    }
    assert [code for code in sorted(codes) if f"\n| {code} |" not in table] == []


@pytest.mark.parametrize("point", POINTS)
def test_every_fault_point_is_named(point: str) -> None:
    assert f"`{point}`" in docs()


@pytest.mark.parametrize("variable", sorted(code_variables()))
def test_every_environment_variable_of_the_program_is_documented(variable: str) -> None:
    assert f"| `{variable}` |" in text_of(DOCS / "configuration.md")


@pytest.mark.parametrize("variable", sorted(variables_of_tests()))
def test_every_environment_variable_of_the_tests_is_documented(variable: str) -> None:
    page = text_of(ROOT / "CONTRIBUTING.md")
    assert variable in page or f"`…{variable.removeprefix('HEADWATER_TEST')}`" in page


@pytest.mark.parametrize(
    ("page", "target"), list(links()), ids=lambda v: v.name if isinstance(v, Path) else v
)
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), f"{page.name} links to {target}"
    if anchor:
        assert anchor in anchors(there), f"{page.name} links to {target}"


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for source, target in links():
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.is_dir():
                reached.update(there.glob("*.md"))
            elif source == page and there.suffix == ".md" and there not in reached:
                waiting.append(there)
    assert sorted(p.name for p in set(PAGES) - reached) == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/quick-start.md"])
def test_make_targets_that_a_page_names_are_in_the_makefile(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", text_of(ROOT / page), re.M | re.S))
    code += "\n".join(re.findall(r"`([^`\n]+)`", text_of(ROOT / page)))
    named = set(re.findall(r"\bmake (?:-s )?([a-z]+(?:-[a-z]+)*)", code))
    assert named
    assert named <= targets


def examples() -> Iterator[tuple[str, str]]:
    """Every configuration in documentation and deploy/, completed where it shows a part only."""
    for page in PAGES:
        for number, toml in enumerate(
            re.findall(r"^```toml\n(.*?)^```", text_of(page), re.M | re.S)
        ):
            if "[sources.shop]" not in toml and "[targets." in toml:
                toml += '\n[sources.shop]\nurl = "mysql://headwater@db1.internal/shop"\n'
            yield f"{page.name}-{number}", toml
    for path in sorted(ROOT.glob("deploy/*.toml")):
        yield path.name, path.read_text()


@pytest.mark.parametrize("toml", dict(examples()).values(), ids=dict(examples()))
def test_configurations_in_the_documentation_are_valid(toml: str, tmp_path: Path) -> None:
    path = tmp_path / "headwater.toml"
    path.write_text(toml)
    variables = re.findall(r"\$\{([^}]*)\}", toml)
    loaded = load(path, dict.fromkeys(variables, "a secret that is long enough"))
    assert loaded.warnings == ()


def test_the_readme_has_an_example_with_a_source_and_a_target(tmp_path: Path) -> None:
    """`test_configurations_in_the_documentation_are_valid` reads it: it must not vanish."""
    toml = dict(examples())["README.md-0"]
    assert "[sources." in toml
    assert "[targets." in toml


def test_pages_name_no_folder_of_a_machine_that_wrote_them() -> None:
    folders = ("/" + name + "/" for name in ("work", "tmp", "root", "home"))
    assert [
        (page.name, folder) for folder in folders for page in PAGES if folder in text_of(page)
    ] == []
