"""The tier of WebAssembly, where its extra is installed: `make test-wasm`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from soarctl_code.jail import tiers
from soarctl_code.jail.jobs import Job, Limits, Ran
from soarctl_code.jail.supervisor import Pool

ROOT = Path(__file__).parents[3]
FOLDERS = [str(ROOT), str(ROOT / "domains" / "code")]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    if not (report := tiers.inspect_tier("wasm")).usable:
        pytest.skip(f"the tier wasm does not hold here: {report.reason}")
    pool = Pool("wasm")
    yield pool
    assert pool.faults == {}
    pool.close()


LIMITS = Limits()


def ran(pool: Pool, program: str, limits: Limits = LIMITS) -> Ran:
    return pool.drive([tiers.one_run(Job(program, "script", limits=limits))])[0]


def test_auto_takes_it_where_the_kernel_allows_nothing_else(pool: Pool) -> None:
    program = (
        f"import sys; sys.path[:0] = {FOLDERS!r}\n"
        "from soarctl_code.domain import CodeDomain\n"
        "from soarctl_code.jail import confine\n"
        "from soarctl_code.jail.syscalls import *\n"
        "refused = [number(name, machine()) for name in ('unshare', 'seccomp', 'landlock_create_ruleset')]\n"
        "code = [Instruction(LOAD, NR)]\n"
        "for value in refused:\n"
        "    code += [Instruction(EQUAL, value, 0, 1), Instruction(RETURN, ERRNO | 38)]\n"
        "confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)\n"
        "confine.Filter([*code, Instruction(RETURN, ALLOW)]).install()\n"
        "for finding in CodeDomain().checks():\n"
        "    print(finding.what, '|', finding.found, '|', finding.problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        "\nsandbox | programs run in wasm: isolated: files, network, processes, memory; programs run in a CPython 3.15 "
        "without threads | None\n"
    ) in done.stdout
    assert (
        "sandbox seccomp | out: a run failed 4 times for reasons of the sandbox: confinement: OSError:" in done.stdout
    )


@pytest.mark.slow
def test_the_interpreter_is_compiled_once_with_a_word_about_it(pool: Pool, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {FOLDERS!r}\nfrom soarctl_code.jail import tiers\n"
        "print(tiers.inspect_tier('wasm').usable)"
    )
    said: list[list[str]] = []
    seconds: list[float] = []
    for _ in range(2):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        )  # fmt: skip
        seconds.append(time.monotonic() - started)
        assert done.stdout == "True\n"
        said.append(done.stderr.splitlines())
    assert said[0][0].startswith(f"soarctl: compiling the WebAssembly interpreter, once, to {tmp_path}")
    assert said[0][1].startswith("soarctl: compiled in ")
    assert said[1] == []
    assert seconds[1] < 10 < seconds[0]
    kept = list((tmp_path / "soarctl" / "wasm").glob("*.cwasm"))
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]


def test_memory_is_bounded_beside_what_the_interpreter_has(pool: Pool) -> None:
    assert ran(pool, "print(len(bytearray(200 << 20)))").stdout == b"209715200\n"
    over = ran(pool, "held = []\nwhile True: held.append(bytes(1 << 20))")
    assert over.answers == [["raise", "MemoryError"]]
    assert over.rss < (256 + 200) << 10
    assert ran(pool, "bytearray(200 << 20)", Limits(memory=100 << 20)).answers == [["raise", "MemoryError"]]


def test_nothing_of_the_machine_is_there(pool: Pool) -> None:
    program = (
        "import os\nfound = []\nfor folder, _, files in os.walk('/'):\n"
        "    found += [os.path.join(folder, name) for name in files]\nprint(*sorted(found))\nprint(dict(os.environ))"
    )
    files, environment = ran(pool, program).stdout.decode().splitlines()
    own = [f"/soarctl_code/jail/{name}.py" for name in ("__init__", "child", "interpreter", "wire")]
    assert (files.split(), environment) == ([*own, "/usr/local/lib/python315.zip"], "{}")


def test_the_door_that_its_package_has_for_hosts_is_shut(pool: Pool) -> None:
    assert b"OSError: host door returned 63" in ran(pool, "import _host\n_host.call(b'hello')").stderr


def test_sets_have_one_order_in_all_servers(pool: Pool) -> None:
    program = "print({chr(n) * 3 for n in range(97, 123)})"
    other = Pool("wasm", workers=1)
    try:
        assert ran(pool, program).stdout == ran(other, program).stdout
    finally:
        other.close()


def test_a_stack_that_overflows_ends_the_run_and_no_other(pool: Pool) -> None:
    program = (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __getattr__(self, name): return getattr(self, name + 'x')\nA().a\n"
    )
    ended = ran(pool, program)
    assert ended.ended == "exited"
    assert os.WEXITSTATUS(ended.status) != 0
    assert ran(pool, "print(1)").stdout == b"1\n"
