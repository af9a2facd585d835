"""Which jail is chosen, and that nothing runs where none holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from soarctl_code.domain import CodeDomain
from soarctl_code.jail import tiers
from soarctl_code.jail.jobs import SandboxError
from soarctl_code.jail.supervisor import Pool
from soarctl_code.sandbox import CONFESSION, Sandbox

ROOT = Path(__file__).parents[3]


def report(tier: tiers.Tier, usable: bool) -> tiers.TierReport:
    return tiers.TierReport(tier, usable, "it holds" if usable else "the kernel has none")


def test_the_strongest_tier_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "inspect_tier", lambda tier, *_: report(tier, tier != "namespace"))
    assert tiers.choose("auto", "seccomp", "", ()).tier == "landlock"
    assert tiers.choose("seccomp", "seccomp", "", ()).tier == "seccomp"
    monkeypatch.setattr(tiers, "inspect_tier", lambda tier, *_: report(tier, tier in ("wasm", "command", "unsafe")))
    assert tiers.choose("auto", "seccomp", "", ()).tier == "wasm"
    with pytest.raises(tiers.SandboxRefused, match='no sandbox of at least min_tier "landlock"'):
        tiers.choose("auto", "landlock", "", ())


def test_where_no_tier_holds_the_run_is_refused_with_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "inspect_tier", lambda tier, *_: report(tier, tier == "unsafe"))
    with pytest.raises(tiers.SandboxRefused) as refused:
        tiers.choose("auto", "seccomp", "", ())
    assert refused.value.exit_code == 5
    assert str(refused.value).startswith(
        'domain.sandbox: no sandbox of at least min_tier "seccomp" works on this machine, so no program was started\n'
        "  namespace: the kernel has none\n  landlock: the kernel has none\n  seccomp: the kernel has none\n"
        "  wasm: the kernel has none\n"
    )


def test_a_tier_below_the_minimum_is_refused_even_when_it_is_asked_for() -> None:
    with pytest.raises(ValueError, match='the tier "unsafe" is weaker than min_tier "seccomp": NOT ISOLATED'):
        CodeDomain.model_validate({"sandbox": {"tier": "unsafe"}})
    with pytest.raises(ValueError, match='the tier "seccomp" is weaker than min_tier "landlock"'):
        CodeDomain.model_validate({"sandbox": {"tier": "seccomp", "min_tier": "landlock"}})


def test_only_the_whole_sentence_lets_programs_run_without_isolation() -> None:
    assert Sandbox(tier="unsafe", unsafe=CONFESSION).report().reason == "NOT ISOLATED: resource limits only"
    for less in (True, "true", "yes", CONFESSION.lower()):
        with pytest.raises(ValueError, match="WITHOUT ISOLATION"):
            Sandbox.model_validate({"tier": "unsafe", "unsafe": less})


def test_the_sentence_alone_does_not_give_up_a_tier_that_holds() -> None:
    assert Sandbox(unsafe=CONFESSION).report().tier == Sandbox().report().tier


def test_every_tier_says_what_each_probe_found() -> None:
    reports = tiers.inspect_tiers()
    assert [r.tier for r in reports] == list(tiers.TIERS)
    for r in reports:
        if r.usable and r.tier in tiers.ISOLATING:
            assert [p.name for p in r.probes] == list(tiers.PROBES.values())
            assert all(p.contained for p in r.probes)
        else:
            assert r.reason


def test_doctor_is_told_every_tier_every_probe_and_what_programs_run_in() -> None:
    found = {f.what: f for f in CodeDomain().checks()}
    assert list(found) == [
        *(f"sandbox {tier}" for tier in tiers.TIERS), *(f"probe: {name}" for name in tiers.PROBES.values()), "sandbox",
    ]  # fmt: skip
    assert found["sandbox command"].found == "out: no command is given in the spec"
    assert found["sandbox"].found.startswith(f"programs run in {Sandbox().report().tier}: ")
    assert found["sandbox"].problem is None
    for tier in tiers.ISOLATING:
        if tiers.inspect_tier(tier).usable:
            refusal = "OSError" if tier == "wasm" else "PermissionError"
            assert f"{tier} refused ({refusal})" in found["probe: sending a datagram"].found


def test_the_probes_notice_a_jail_that_holds_nothing() -> None:
    pool = Pool("unsafe", workers=1)
    try:
        probes = {p.name for p in tiers.probe(pool, "unsafe").probes if not p.contained}
    finally:
        pool.close()
    assert {
        "writing a file outside",
        "reading a file outside",
        "connecting to a TCP port",
        "starting a process",
    } <= probes


def test_in_a_container_namespaces_are_out_and_the_next_tier_is_taken() -> None:
    program = (
        "import json\n"
        "from soarctl_code.jail import confine, syscalls, tiers\n"
        "confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)\n"
        "confine.Filter(syscalls.container_filter(confine.ARCH)).install()\n"
        "print(json.dumps([[r.tier, r.usable, r.reason] for r in tiers.inspect_tiers()[:3]]))\n"
    )
    folders = [str(ROOT), str(ROOT / "domains" / "code")]
    program = f"import sys; sys.path[:0] = {folders!r}\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    namespace, landlock, _ = json.loads(done.stdout)
    assert namespace == [
        "namespace", False, "the namespace sandbox does not start: [Errno 1] unshare: Operation not permitted",
    ]  # fmt: skip
    assert landlock[1] == tiers.inspect_tier("landlock").usable


def test_a_users_command_is_believed_and_called_unverified() -> None:
    found = tiers.inspect_tier("command", "", ["env"])
    assert (found.usable, found.reason) == (True, "as given by the user, not verified")
    assert not all(p.contained for p in found.probes)
    with pytest.raises(ValueError, match=r"weaker than min_tier .* not verified; min_tier: command allows it"):
        Sandbox(tier="command", command=("env",))
    assert Sandbox(tier="command", command=("env",), min_tier="command").report().tier == "command"


def test_an_interpreter_that_does_not_start_is_an_error_that_says_so() -> None:
    with pytest.raises(SandboxError, match=r"the landlock sandbox does not start: .*No such file"):
        Pool("landlock", python="/nonexistent/python")


def test_a_machine_without_tables_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers.confine, "ARCH", "riscv64")
    assert tiers.inspect_tier("landlock").reason == (
        "there is no system-call table for riscv64; x86_64 and aarch64 have one"
    )
