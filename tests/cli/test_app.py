"""The command line as a whole: errors, exit codes, pipes, help."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import soarctl
from soarctl.cli import app as cli
from soarctl.errors import PluginError, RunError, SoarError

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["soarctl", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> Any:
    def body(*_: object, **__: object) -> None:
        raise error

    return body


def test_an_error_is_told_on_stderr_without_a_traceback_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RunError("in use", at="runs/small", hint="wait\nor stop it")
    monkeypatch.setattr("soarctl.cli.plugins.plugins", raising(error))
    assert run("plugins", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr() == ("", "error: runs/small: in use\n  wait\n  or stop it\n")


def test_the_exit_code_is_that_of_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unusual(SoarError):
        exit_code = 7

    monkeypatch.setattr("soarctl.cli.plugins.plugins", raising(Unusual("so")))
    assert run("plugins", monkeypatch=monkeypatch) == 7


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soarctl.cli.plugins.plugins", raising(ZeroDivisionError()))
    monkeypatch.setattr(sys, "argv", ["soarctl", "plugins"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("soarctl.cli.plugins.plugins", raising(KeyboardInterrupt()))
    assert run("plugins", monkeypatch=monkeypatch) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_has_no_colours_whatever_the_terminal_wants() -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "soarctl", "validate", "nowhere.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: nowhere.yaml: no such file\n")


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [sys.executable, "-m", "soarctl", "plugins"], stdout=writing, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writing)
        _, said = process.communicate()
    assert said == ""
    assert process.returncode != -signal.SIGPIPE


def test_without_a_command_it_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch=monkeypatch)
    assert "Usage: soarctl" in "".join(capsys.readouterr())


def test_version_prints_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"{soarctl.__version__}\n"


@pytest.mark.parametrize("arguments", [["valdate"], ["validate"], ["validate", "a", "b"], ["plugins", "--wrong"]])
def test_a_wrong_command_line_exits_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_shows_one_example(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert command.epilog.startswith(f"Example: soarctl {name}")
    assert all(p.help for p in command.params if p.name != "help")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_uses_options_that_exist(name: str) -> None:
    known = {option for p in COMMANDS[name].params for option in (*p.opts, *p.secondary_opts)}
    words = COMMANDS[name].epilog.split()
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", ["validate", "schema", "plugins"])
def test_an_example_works_as_it_is_printed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    arguments = COMMANDS[name].epilog.removeprefix("Example: soarctl ").split()
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out


def test_a_broken_plug_in_does_not_break_the_help_or_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = tmp_path / "soarctl_bad-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: soarctl-bad\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[soarctl.domains]\nbroken = soarctl_bad:Broken\n")
    (tmp_path / "soarctl_bad.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("--help", monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert run("plugins", "--check", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if "broken" in line]
    assert line.split()[:5] == ["domain", "broken", "soarctl-bad", "1.0", "soarctl_bad:Broken"]
    assert line.endswith('domain "broken" cannot be imported: RuntimeError: half installed')
    assert any("letters" in line and line.endswith("works") for line in lines)


def test_a_plug_in_error_is_a_soarctl_error() -> None:
    assert PluginError("x").exit_code == 2
