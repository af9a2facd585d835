import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import soarctl.doctor as doctor
from soarctl import __version__
from soarctl.api import Finding


def findings(ran: Any) -> dict[str, dict[str, Any]]:
    return {finding["what"]: finding for finding in json.loads(ran.out)["findings"]}


def test_a_machine_that_is_ready_passes(folder: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("doctor", "--json")
    assert ran.code == 0
    found = findings(ran)
    assert found["soarctl"]["found"] == __version__
    assert found["domain letters"]["problem"] is None
    assert found["runs/"]["found"] == "writable"
    assert int(found["cores"]["found"]) >= 1


def test_the_table_ends_with_the_next_command(folder: Path, soarctl: Callable[..., Any]) -> None:
    lines = soarctl("doctor").out.splitlines()
    assert lines[0].split() == ["LOOKED", "AT", "FOUND", "PROBLEM"]
    assert lines[-1] == "next: soarctl schema"


def test_with_the_quickstart_at_hand_that_is_next(folder: Path, soarctl: Callable[..., Any]) -> None:
    Path("specs").mkdir()
    Path("specs/quickstart.yaml").touch()
    assert soarctl("doctor").out.splitlines()[-1] == "next: soarctl run specs/quickstart.yaml"


def test_a_finished_run_is_to_be_looked_at(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    assert soarctl("doctor").out.splitlines()[-1] == "next: soarctl show runs/small"


def test_an_interrupted_run_is_to_be_resumed(
    folder: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    write_run(folder / "runs" / "small")
    assert soarctl("doctor").out.splitlines()[-1] == (
        "next: soarctl run runs/small/spec.yaml --out runs/small --resume"
    )


def test_a_missing_library_is_a_problem_and_the_next_command(
    folder: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name in ("torch", "peft", "vllm"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    ran = soarctl("doctor", "--json")
    assert ran.code == 1
    found = findings(ran)
    assert (found["torch"]["found"], found["torch"]["problem"]) == ("not installed", "pip install torch")
    assert (found["vllm"]["found"], found["vllm"]["problem"]) == ("not installed", None)
    assert json.loads(ran.out)["next_command"] == "pip install torch peft"


SPEC = """\
name: small
domain: {plugin: code, sandbox: {tier: command, min_tier: command}}
model: {base: test}
reward: {plugin: grounded}
"""


def test_every_installed_domain_is_asked_and_what_it_lacks_is_no_problem(
    folder: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from soarctl_letters.domain import LettersDomain

    monkeypatch.setattr(LettersDomain, "checks", lambda _: [Finding("the alphabet", "24 letters", "two are missing")])
    ran = soarctl("doctor", "--json")
    assert ran.code == 0
    assert findings(ran)["letters: the alphabet"] == {
        "what": "letters: the alphabet", "found": "24 letters: two are missing", "problem": None,
    }  # fmt: skip


def test_a_domain_whose_checks_fail_does_not_stop_the_others(
    folder: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from soarctl_letters.domain import LettersDomain

    def fail(_: LettersDomain) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(LettersDomain, "checks", fail)
    found = findings(soarctl("doctor", "--json"))
    assert found["letters: checks"]["found"] == "failed: ZeroDivisionError: division by zero"
    assert found["code: sandbox unsafe"]["found"] == "holds: NOT ISOLATED: resource limits only"


def test_what_a_specs_domain_lacks_is_a_problem(folder: Path, soarctl: Callable[..., Any]) -> None:
    Path("spec.yaml").write_text(SPEC)
    ran = soarctl("doctor", "spec.yaml", "--json")
    assert ran.code == 1
    assert findings(ran)["code: sandbox"] == {
        "what": "code: sandbox",
        "found": "refused",
        "problem": 'no sandbox of at least min_tier "command" works on this machine, so no program was started',
    }
    assert not any(what.startswith("letters:") for what in findings(ran))


def test_a_broken_plug_in_is_named(folder: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = folder / "packages" / "soarctl_broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: soarctl-broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[soarctl.domains]\nbroken = soarctl_broken:Broken\n")
    monkeypatch.syspath_prepend(str(metadata.parent))
    ran = soarctl("doctor", "--json")
    assert ran.code == 1
    assert findings(ran)["domain broken"] == {
        "what": "domain broken",
        "found": "soarctl-broken 1.0",
        "problem": "domain \"broken\" cannot be imported: ModuleNotFoundError: No module named 'soarctl_broken'",
    }


def test_a_place_for_runs_that_cannot_be_written_is_a_problem(
    folder: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    ran = soarctl("doctor", "--json")
    assert ran.code == 1
    assert findings(ran)["runs/"]["problem"] == "not writable: Permission denied"


def test_without_deep_torch_is_not_imported(folder: Path) -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from soarctl.cli.app import main\n"
        "sys.argv = ['soarctl', 'doctor']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == "False\n"


@pytest.mark.slow
def test_deep_imports_torch_and_the_trainers(folder: Path, soarctl: Callable[..., Any]) -> None:
    found = findings(soarctl("doctor", "--deep", "--json"))
    assert found["torch works"]["problem"] is None
    assert found["trainer accelerate"]["problem"] is None
