"""The command line without servers: what it lists, how it ends, what it prints where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops import cli
from ops.process_group import command, environment, run_together
from ops.supervise import Signals, listening
from schemas.errors import Fenced

COMMANDS = [
    "run",
    "capture",
    "apply",
    "prepare",
    "position",
    "import-check",
    "catch-up",
    "snapshot",
    "verify",
    "status",
    "preflight",
    "peek",
    "drop",
    "config",
    "demo",
]


def headwater(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), env=environment(), cwd=folder, capture_output=True, text=True, check=False
    )


def test_help_lists_every_command() -> None:
    printed = CliRunner().invoke(cli.app, ["--help"]).stdout
    assert [name for name in COMMANDS if f"\n  {name} " not in printed] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_can_print_json(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert len(result.stdout.splitlines()) > 5


def test_an_error_is_a_sentence_a_hint_and_the_code_of_its_class(tmp_path: Path) -> None:
    ended = headwater("status", folder=tmp_path)
    assert ended.returncode == 78
    assert ended.stdout == ""
    first, second = ended.stderr.splitlines()
    assert first == "headwater: found no configuration file headwater.toml"
    assert second.startswith("  -> ")


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('[sources.shop]\nurl = "mysql://db/"\n')
    ended = headwater("capture", "shp", folder=tmp_path)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (78, "  -> did you mean shop?")


def test_the_example_can_be_printed_without_a_configuration(tmp_path: Path) -> None:
    ended = headwater("config", "--example", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "[sources.shop]" in ended.stdout


def test_the_effective_configuration_is_printed_without_passwords(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('[sources.a]\nurl = "mysql://u:plain@db/"\n')
    ended = headwater("config", "--json", folder=tmp_path)
    assert json.loads(ended.stdout)["sources"]["a"]["url"] == "mysql://u:***@db/"


def test_an_unexpected_error_shows_no_values_without_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("row value 4711")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 70
    printed = capsys.readouterr().err
    assert "ZeroDivisionError" in printed
    assert "4711" not in printed


def test_an_unexpected_error_shows_its_traceback_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setenv("HEADWATER_DEBUG", "1")
    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit):
        cli.main()
    assert "Traceback" in capsys.readouterr().err


def test_a_fenced_process_ends_with_75(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fenced() -> None:
        raise Fenced("lost the log to a newer capture", hint="stop one of them")

    monkeypatch.setattr(cli, "app", fenced)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 75
    assert capsys.readouterr().err == (
        "headwater: lost the log to a newer capture\n  -> stop one of them\n"
    )


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_when_one_process_fails_the_rest_stop_and_its_code_is_the_groups() -> None:
    waits = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); signal.pause()"
    code = run_together({"a": python("exit(78)"), "b": python(waits)}, Signals())
    assert code == 78


def test_a_process_that_is_stopped_before_it_listens_is_stopped_as_well() -> None:
    """H143: while it still imports, SIGTERM ends it by itself."""
    asks = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    with listening() as signals:
        assert run_together({"a": python(asks)}, signals) == 0


def test_a_killed_process_ends_the_group_with_the_shells_code() -> None:
    dies = "import os; os.kill(os.getpid(), 9)"
    assert run_together({"a": python(dies)}, Signals()) == 137


def test_sigterm_stops_the_whole_group_with_code_0() -> None:
    asks = (
        "import os, signal; signal.signal(signal.SIGTERM, lambda *_: exit(0));"
        "os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    )
    with listening() as signals:
        assert run_together({"a": python(asks)}, signals) == 0
