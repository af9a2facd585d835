"""What comes out of the jail is what the supervisor saw, whatever a program does and whatever breaks."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from soarctl_code.jail import tiers
from soarctl_code.jail.jobs import Limits, SandboxError
from soarctl_code.jail.supervisor import Pool
from soarctl_code.verdicts import Finding, Task, judge

SQUARE = "def solve(x):\n    return x * x\n"
CALL = [{"kind": "call", "fn": "solve", "args": [7], "expected": 49}]
ASSERT = [{"kind": "assert", "code": "assert solve(7) == 49", "names": ["solve"]}]
SHORT = Limits(wall=0.5, cpu=0.5)


def usable(tier: tiers.Tier) -> bool:
    return tiers.inspect_tier(tier).usable


@pytest.fixture(scope="module", params=tiers.ISOLATING)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if not usable(request.param):
        pytest.skip(f"the tier {request.param} does not hold here: {tiers.inspect_tier(request.param).reason}")
    pool = Pool(request.param)
    yield pool
    assert pool.faults == {}
    pool.close()


@pytest.fixture(params=["strongest", "wasm"])
def private_pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if request.param == "wasm" and not usable("wasm"):
        pytest.skip(f"the tier wasm does not hold here: {tiers.inspect_tier('wasm').reason}")
    pool = Pool("wasm" if request.param == "wasm" else tiers.choose("auto", "seccomp", "", ()).tier)
    yield pool
    pool.close()


def verdict(pool: Pool, program: str, tests: Sequence[dict[str, Any]], limits: Limits = SHORT, setup: str = "") -> str:
    return finding(pool, program, tests, limits, setup).word


def finding(
    pool: Pool, program: str, tests: Sequence[dict[str, Any]], limits: Limits = SHORT, setup: str = ""
) -> Finding:
    return pool.drive([judge(program, tests, limits=limits, setup=setup)])[0]


@pytest.mark.parametrize(
    ("program", "tests", "word"),
    [
        (SQUARE, CALL, "passed"),
        (SQUARE, ASSERT, "passed"),
        ("print(int(input()) ** 2)", [{"kind": "stdin", "stdin": "7\n", "stdout": "49"}], "passed"),
        ("def solve(x):\n    return 'x'", CALL, "wrong_answer"),
        ("def solve(x):\n    return None", ASSERT, "wrong_answer"),
        ("import sys\nsys.exit(0)", CALL, "wrong_answer"),
        ("import sys\nsys.exit(0)", ASSERT, "wrong_answer"),
        ("import sys\nsys.exit(3)", CALL, "runtime_error"),
        ("def solve(x):\n    raise ValueError", CALL, "runtime_error"),
        ("def solve(x):\n    raise ValueError", ASSERT, "runtime_error"),
        ("def other(x):\n    return 49", CALL, "runtime_error"),
        ("def solve(x:", ASSERT, "runtime_error"),
        ("import time\ntime.sleep(60)", CALL, "timeout"),
        ("while True: pass", ASSERT, "timeout"),
        ("def solve(x):\n    return bytearray(1 << 30)", CALL, "memory_limit"),
        ("while True: print('x' * 1000)", CALL, "output_limit"),
        ("import os\nos.abort()", CALL, "runtime_error"),
        (SQUARE, [{"kind": "assert", "code": "assert solve(7) == undefined", "names": ["solve"]}], "invalid_test"),
        (SQUARE, [{"kind": "assert", "code": "assert True", "names": ["solve"]}], "invalid_test"),
        (SQUARE, [{"kind": "assert", "code": "assert solve(", "names": ["solve"]}], "invalid_test"),
        (SQUARE, [{"kind": "assert", "code": "raise OSError", "names": ["solve"]}], "invalid_test"),
        (SQUARE, [{"kind": "assert", "code": "import os; os._exit(0)", "names": ["solve"]}], "invalid_test"),
        (SQUARE, [], "invalid_test"),
        (SQUARE, [{"kind": "call"}], "invalid_test"),
        (SQUARE, [{"kind": "else"}], "invalid_test"),
    ],
)
def test_a_program_gets_the_verdict_it_deserves(
    pool: Pool, program: str, tests: list[dict[str, Any]], word: str
) -> None:
    assert verdict(pool, program, tests) == word


HONEST = {
    "exit": "print(49)\nexit()",
    "quit": "def main():\n    print(49)\n    quit(0)\nmain()",
    "a file": "import os\nprint(49 if os.path.abspath(__file__).endswith('program.py') else 0)",
    "descriptor 0": "print(int(open(0).read()) ** 2)",
    "bytes": "import sys\nsys.stdout.buffer.write(str(int(sys.stdin.buffer.readline()) ** 2).encode())",
    "lines": "import fileinput\nfor line in fileinput.input():\n    print(int(line) ** 2)",
    "a deep thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\ndef main(): print(49 if f(30000) == 30000 else 0)\n"
        "t = threading.Thread(target=main)\nt.start()\nt.join()"
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: print(sum(pool.map(int, ['40', '9'])))"
    ),
    "a data class": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
        "print(A(49).x)"
    ),
    "pickled": "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))\nprint(49)",
    "a larger stack": ("import resource as r\nr.setrlimit(r.RLIMIT_STACK, r.getrlimit(r.RLIMIT_STACK))\nprint(49)"),
    "at its end": "import atexit\natexit.register(print, 49)",
    "an original stream": "import io, sys\nsys.stdout = io.StringIO()\nsys.__stdout__.write('49')",
    "another stream": "import os\nout = os.fdopen(1, 'w')\nout.write('49')",
    "a closed stream": "import sys\nprint(49, flush=True)\nsys.stdout.close()",
    "no stream": "import sys\nprint(49, flush=True)\nsys.stdout = None",
    "the size of its input": "import os\nprint(int(os.read(0, os.fstat(0).st_size)) ** 2)",
    "the path of its input": "print(int(open('/dev/stdin').read()) ** 2)",
    "an error in eval": "try: eval('1+')\nexcept SyntaxError: print(49)",
    "its depth": (
        "def down(n): return n and down(n - 1)\n"
        "for n in range(900, 1100):\n    try: down(n)\n    except RecursionError: break\n"
        "print(49 if 995 < n < 1005 else n)"
    ),
    "its main module": "import __main__\n__main__.answer = 49\nprint(answer)",
}
NOT_IN_WASM = {
    "a deep thread": "can't start new thread",
    "a pool of threads": "can't start new thread",
    "a larger stack": "Unsupported platform for standard library module 'resource'",
}


@pytest.mark.parametrize("kind", HONEST)
def test_what_honest_programs_do_works_in_every_tier(pool: Pool, kind: str) -> None:
    tests = [{"kind": "stdin", "stdin": "7\n", "stdout": "49\n"}]
    found = finding(pool, HONEST[kind], tests, Limits())
    if pool.tier == "wasm" and kind in NOT_IN_WASM:
        assert (found.word, NOT_IN_WASM[kind] in found.detail) == ("runtime_error", True)
    else:
        assert found.word == "passed", found.detail


def test_what_is_no_python_is_told_from_what_fails(pool: Pool) -> None:
    programs = {"def f(x:": False, "def f(x):\nreturn x": False, "eval('1+')": True, "raise SyntaxError": True}
    found = pool.drive([judge(program, CALL) for program in programs])
    assert [(f.word, f.parsed) for f in found] == [("runtime_error", parsed) for parsed in programs.values()]


def test_a_program_may_begin_with_future_imports_whatever_stands_before_it(pool: Pool) -> None:
    program = "from __future__ import annotations\ndef solve(x: Undefined) -> List[int]:\n    return square(x)"
    preamble = "from typing import *\ndef square(x):\n    return x * x\n"
    for tests in (CALL, ASSERT):
        assert pool.drive([judge(program, tests, preamble=preamble)])[0].word == "passed"


def test_what_the_preamble_gives_is_no_answer_but_a_helper_of_assertions(pool: Pool) -> None:
    given = "def solve(x):\n    return 49"
    method = "class Solution:\n    def solve(self, x):\n        return x * x"
    asked = [(given, "", CALL), (given, "", ASSERT), ("def solve(x): return 0", method, CALL)]
    words = [pool.drive([judge(p, tests, preamble=given)])[0].word for given, p, tests in asked]
    assert words == ["runtime_error", "passed", "passed"]


def test_a_program_that_is_always_wrong_is_not_run_on_all_tests(pool: Pool) -> None:
    tests = [{"kind": "stdin", "stdin": str(n), "stdout": "1"} for n in range(20)]
    found = finding(pool, "print(0)", tests)
    assert (found.word, found.runs) == ("wrong_answer", 10)
    found = finding(pool, "print(1)", tests)
    assert (found.word, found.runs, found.passed) == ("passed", 20, 20)


def test_a_test_may_expect_an_exception(pool: Pool) -> None:
    code = (
        "try:\n    solve(-1)\nexcept ValueError as error:\n    assert 'negative' in str(error)\nelse:\n    assert False"
    )
    tests = [{"kind": "assert", "code": code, "names": ["solve"]}]
    assert verdict(pool, "def solve(x):\n    raise ValueError('negative')", tests) == "passed"
    assert verdict(pool, SQUARE, tests) == "wrong_answer"


def test_an_answer_that_a_test_stumbles_over_is_a_wrong_answer(pool: Pool) -> None:
    tests = [{"kind": "assert", "code": "assert len(solve(7)) == 2", "names": ["solve"]}]
    assert verdict(pool, SQUARE, tests) == "wrong_answer"


@pytest.mark.parametrize(
    ("returned", "test"),
    [
        ("(n for n in range(x))", "list(solve(3)) == [0, 1, 2]"),
        ("iter([x, x + 1])", "next(solve(3)) == 3"),
        ("map(str, [x])", "[*solve(3)] == ['3']"),
        ("{x: 4}.keys()", "solve(3) == {3} and sorted(solve(3)) == [3]"),
        ("{x: 4}.values()", "4 in solve(3)"),
        ("{x: 4}.items()", "dict(solve(3)) == {3: 4}"),
        ("fractions.Fraction(1, x)", "solve(3) == fractions.Fraction(1, 3)"),
        ("decimal.Decimal(x) / 2", "solve(3) == decimal.Decimal('1.5')"),
        ("collections.deque([x])", "solve(3) == collections.deque([3])"),
        ("collections.Counter('aab')", "solve(3).most_common(1) == [('a', 2)]"),
        ("datetime.date(2020, 1, x)", "solve(3) == datetime.date(2020, 1, 3)"),
        ("[datetime.timedelta(x)]", "solve(3)[0].days == 3"),
        ("bytearray(b'a')", "solve(3) == b'a'"),
        ("x.year", "solve(datetime.datetime(2020, 1, 1)) == 2020"),
        ("len(list(x))", "solve({1: 2}.keys()) == 1"),
    ],
)
def test_values_of_usual_library_types_cross_between_program_and_test(pool: Pool, returned: str, test: str) -> None:
    library = "import collections, datetime, decimal, fractions\n"
    tests = [{"kind": "assert", "code": f"assert {test}", "names": ["solve"]}]
    found = finding(pool, f"{library}def solve(x):\n    return {returned}", tests, Limits(), library)
    assert found.word == "passed", found.detail


def test_a_test_with_an_argument_that_does_not_cross_is_at_fault(pool: Pool) -> None:
    codes = ["assert solve([lambda: 3]) == 3", "try: solve(print)\nexcept Exception: pass", "assert solve(3) == 9"]
    tests = [{"kind": "assert", "code": code, "names": ["solve"]} for code in codes]
    found = finding(pool, SQUARE, tests)
    assert (found.word, found.passed) == ("invalid_test", 1)
    assert found.detail == "invalid a function as an argument does not cross"


def test_an_answer_without_end_is_too_large(pool: Pool) -> None:
    program = "import itertools\ndef solve(x):\n    return itertools.count()"
    assert verdict(pool, program, ASSERT, Limits()) == "output_limit"


def test_tests_are_counted_one_by_one(pool: Pool) -> None:
    codes = ["assert solve(0) == 0", "assert solve(1) == 2", "assert solve(1) == 1"]
    found = finding(pool, SQUARE, [{"kind": "assert", "code": code, "names": ["solve"]} for code in codes])
    assert (found.word, found.passed, found.total) == ("wrong_answer", 2, 3)


def test_a_test_that_never_ends_is_a_timeout_though_the_program_has_ended(pool: Pool) -> None:
    code = "try:\n    solve(1)\nfinally:\n    while True: pass"
    tests = [{"kind": "assert", "code": code, "names": ["solve"]}]
    assert verdict(pool, "import os\nos._exit(0)", tests) == "timeout"


def test_an_argument_may_be_larger_than_an_answer(pool: Pool) -> None:
    numbers = list(range(400_000))
    tests = [{"kind": "call", "fn": "solve", "args": [numbers], "expected": len(numbers)}]
    assert verdict(pool, "def solve(x):\n    return len(x)", tests, Limits()) == "passed"


def test_text_that_is_no_utf8_makes_a_test_invalid_and_no_crash(pool: Pool) -> None:
    assert verdict(pool, "print(1)", [{"kind": "stdin", "stdin": "\ud800", "stdout": "1"}]) == "invalid_test"
    assert verdict(pool, "x = '\ud800'", CALL) == "runtime_error"


def test_a_program_that_replaces_the_way_out_still_ends(pool: Pool) -> None:
    program = f"import os, sys\nos._exit = sys.exit = lambda *_: None\n{SQUARE}"
    assert verdict(pool, program, CALL) == "passed"
    assert verdict(pool, program, ASSERT) == "passed"


def test_a_program_may_write_as_much_as_its_test_expects(pool: Pool) -> None:
    tests = [{"kind": "stdin", "stdin": "", "stdout": "x" * 200_000}]
    assert verdict(pool, "print('x' * 200_000)", tests) == "passed"
    assert verdict(pool, "while True: print('x' * 200_000)", tests) == "output_limit"


def test_random_numbers_are_those_of_the_seed(pool: Pool) -> None:
    program = "import random\ndef solve(x):\n    return random.random()"
    import random

    random.seed(5)
    tests = [{"kind": "call", "fn": "solve", "args": [0], "expected": random.random()}]
    assert [f.word for f in pool.drive([judge(program, tests, seed=seed) for seed in (5, 5, 6)])] == [
        "passed", "passed", "wrong_answer",
    ]  # fmt: skip


def test_scratch_files_work_where_the_tier_has_them(pool: Pool) -> None:
    program = "def solve(x):\n    open('a', 'w').write('49')\n    return int(open('a').read())"
    assert verdict(pool, program, CALL) == ("passed" if pool.tier == "namespace" else "runtime_error")


def test_scratch_space_is_limited(pool: Pool) -> None:
    if pool.tier != "namespace":
        pytest.skip("only the namespace tier has scratch files")
    program = (
        "def solve(x):\n    size = 0\n    try:\n        for i in range(100):\n"
        "            size += open(str(i), 'wb').write(bytes(1 << 20))\n"
        "    except OSError:\n        pass\n    return size"
    )
    tests = [{"kind": "call", "fn": "solve", "args": [0], "expected": 16 << 20}]
    found = finding(pool, program, tests, Limits())
    assert found.word == "passed", found.detail


def test_shown_text_holds_no_control_characters(pool: Pool) -> None:
    found = finding(pool, "import sys\nsys.stderr.write('\\x1b[2J\\u202e\\x07')\ndef solve(x): return 0", CALL)
    assert found.detail == "\\x1b[2J\\u202e\\x07"


def test_programs_that_sleep_leave_their_cpu_to_others(private_pool: Pool) -> None:
    hanging: list[Task] = [judge("import time\ntime.sleep(60)", CALL, limits=Limits()) for _ in range(16)]
    tasks: list[Task] = [hanging[at // 4] if at % 4 == 3 else judge(SQUARE, CALL) for at in range(64)]
    started = time.monotonic()
    words = [f.word for f in private_pool.drive(tasks)]
    seconds = time.monotonic() - started
    assert words == ["passed", "passed", "passed", "timeout"] * 16
    assert seconds < 2.0 + 6.0  # the deadline plus the rest, on a machine that may be busy


@pytest.mark.slow
def test_programs_that_compute_for_ever_cost_their_limit_and_no_more_of_them_run_than_workers(
    private_pool: Pool,
) -> None:
    limits = Limits(wall=0.3, cpu=0.3)
    under_way: list[str] = []
    most = 0

    def counted() -> Task:
        nonlocal most
        under_way.append("one")
        most = max(most, len(under_way))
        found = yield from judge("while True: pass", CALL, limits=limits)
        under_way.remove("one")
        return found

    tasks: list[Task] = [counted() if at % 4 == 3 else judge(SQUARE, CALL) for at in range(64)]
    found = private_pool.drive(tasks)
    assert [f.word for f in found] == ["passed", "passed", "passed", "timeout"] * 16
    assert most == private_pool.workers
    # 16 limits, in CPU: the time that this takes is theirs by the number of CPUs, and the rest.
    assert sum(f.cpu for f in found) < 16 * 2 * limits.cpu


def test_a_program_that_computes_is_not_timed_out_because_others_compute(private_pool: Pool) -> None:
    busy = (
        "import time\ndef solve(x):\n    end = time.process_time() + 0.3\n"
        "    while time.process_time() < end: pass\n    return 49"
    )
    limits = Limits(wall=0.8, cpu=0.8)
    private_pool.workers = 8  # four times as many as there are CPUs here: each gets a quarter of the time it needs
    found = private_pool.drive([judge(busy, CALL, limits=limits) for _ in range(8)])
    assert [f.word for f in found] == ["passed"] * 8


CHURN = """
import _thread, time
_thread.stack_size(65536)
while True:
    for _ in range(8):
        if _thread._count() < 64:
            try: _thread.start_new_thread(len, ('',))
            except RuntimeError: pass
    time.sleep(0.0003)
"""
CROWD = """
import threading, time
threading.stack_size(32768)
while True:
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError: time.sleep(60)
"""


def test_threads_that_keep_ending_do_not_defeat_the_wall_limit(pool: Pool) -> None:
    if pool.tier == "wasm":
        pytest.skip("there are no threads")
    started = time.monotonic()
    assert verdict(pool, CHURN, CALL, Limits(wall=0.15, cpu=10)) == "timeout"
    assert time.monotonic() - started < 0.15 + 3


def test_a_program_with_hundreds_of_threads_is_ended_before_its_deadline(pool: Pool) -> None:
    if pool.tier == "wasm":
        pytest.skip("there are no threads")
    started = time.monotonic()
    assert verdict(pool, CROWD, CALL, Limits(wall=20)) == "memory_limit"
    assert time.monotonic() - started < 10


IN_A_PROCESS_OF_ITS_OWN = """
import os, resource, sys
sys.path[:] = {path!r}
from soarctl_code.jail.jobs import Limits, SandboxError
from soarctl_code.jail.supervisor import Pool
from soarctl_code.verdicts import judge
CALL = [{{"kind": "call", "fn": "solve", "args": [7], "expected": 49}}]
SQUARE = "def solve(x): return x * x"
limits = Limits(wall=0.5)
{body}
sys.stdout.flush()
os._exit(0)
"""


def in_a_process_of_its_own(body: str, *prefix: str) -> str:
    program = IN_A_PROCESS_OF_ITS_OWN.format(path=sys.path, body=body)
    done = subprocess.run([*prefix, sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_fork_that_is_refused_waits_for_another_run_to_end() -> None:
    body = f"""
user = os.getuid() or 54321
own = sum(len(os.listdir(f"/proc/{{pid}}/task")) for pid in os.listdir("/proc")
          if pid.isdigit() and os.path.exists(f"/proc/{{pid}}") and os.stat(f"/proc/{{pid}}").st_uid == user)
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(user, user, user)
    resource.setrlimit(resource.RLIMIT_NPROC, (own + 40, own + 40))
    os.setresuid(user, user, user)
resource.setrlimit(resource.RLIMIT_NPROC, (own + 40, own + 40))
try:
    pool = Pool("seccomp", workers=2, python=os.path.realpath(sys.executable))
except SandboxError as error:
    print(error, flush=True)
    os._exit(0)
programs = [{CROWD!r}] + [SQUARE] * 20
print(*(f.word for f in pool.drive([judge(p, CALL, limits=limits) for p in programs])))
print(*pool.faults)
"""
    words, _, faults = in_a_process_of_its_own(body).partition("\n")
    if "does not start" in words:
        pytest.skip(f"another user cannot use this interpreter: {words}")
    assert words.split() == ["timeout"] + ["passed"] * 20
    assert faults.startswith("fork: ")


def test_a_program_is_stopped_where_proc_hides_it() -> None:
    """As on machines whose /proc is mounted with hidepid."""
    hide = (
        "mount -t proc -o hidepid=2 proc /proc || exit 9\n"
        'exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@"'
    )
    prefix = ["unshare", "-Urmpf", "sh", "-c", hide, "hide"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount of /proc can be made here")
    body = """
pool = Pool("seccomp")
programs = ["import time; time.sleep(60)", SQUARE]
print(*(f.word for f in pool.drive([judge(p, CALL, limits=limits) for p in programs])), *pool.faults)
"""
    assert in_a_process_of_its_own(body, *prefix) == "timeout passed"


@pytest.mark.slow
def test_programs_that_fall_asleep_first_and_take_memory_afterwards_do_not_fill_it(private_pool: Pool) -> None:
    private_pool.workers = 2
    program = "import time\ntime.sleep(0.2)\nheld = b'x' * (100 << 20)\ntime.sleep(60)"
    most = 0.0

    def sampled() -> Task:
        nonlocal most
        found = yield from judge(program, CALL, limits=Limits(wall=2.0))
        taken = [run.taken() for run in private_pool.runs.values()]
        most = max(most, sum(size for size in taken if size < math.inf))  # infinite for one that has ended
        return found

    assert [f.word for f in private_pool.drive([sampled() for _ in range(10)])] == ["timeout"] * 10
    assert list(private_pool.faults) == ["sleepers held too much"]
    assert 0 < most < 800 << 20


@pytest.mark.parametrize("answer", ["'x' * 1_100_000", "[None] * 300_000"])
def test_an_answer_too_large_for_a_judge_has_one_verdict(pool: Pool, answer: str) -> None:
    tests = [{"kind": "assert", "code": f"assert solve(1) == {answer}", "names": ["solve"]}]
    program = f"def solve(x):\n    return {answer}"
    found = pool.drive([judge(program, tests) for _ in range(4)])
    assert [(f.word, f.passed) for f in found] == [("output_limit", 0)] * 4


def test_a_test_whose_arguments_are_too_large_is_at_fault_and_large_ones_cross(pool: Pool) -> None:
    program = "def solve(x):\n    return len(x)"
    small, large, over = (f"assert solve('x' * {n}) == {n}" for n in (1, 2_000_000, 5_000_000))
    tests = [{"kind": "assert", "code": code, "names": ["solve"]} for code in (small, large)]
    assert verdict(pool, program, tests, Limits()) == "passed"
    tests += [{"kind": "assert", "code": over, "names": ["solve"]}]
    found = finding(pool, program, tests, Limits())
    assert (found.word, found.passed, found.detail) == ("invalid_test", 2, "invalid TooLarge")


def test_a_server_that_is_killed_loses_no_job(private_pool: Pool) -> None:
    def assassin() -> Task:
        yield from judge(SQUARE, CALL)
        os.kill(private_pool.servers[0].process.pid, signal.SIGKILL)
        return (yield from judge(SQUARE, ASSERT))

    tasks = [assassin() if index % 20 == 5 else judge(SQUARE, ASSERT) for index in range(60)]
    assert [f.word for f in private_pool.drive(tasks)] == ["passed"] * 60
    assert private_pool.faults["server lost"] >= 3


def test_a_sandbox_that_always_fails_is_an_error_and_no_verdict(private_pool: Pool) -> None:
    # More memory than the address space has: the limit cannot be set, so no child is ever confined.
    with pytest.raises(SandboxError, match="4 times for reasons of the sandbox: confinement"):
        finding(private_pool, SQUARE, CALL, Limits(memory=1 << 70))
    assert verdict(private_pool, SQUARE, CALL) == "passed"


def test_when_the_pool_closes_nothing_is_left(private_pool: Pool) -> None:
    before = set(os.listdir("/proc/self/fd"))
    pool = Pool(private_pool.tier)
    pids = {server.process.pid for server in pool.servers}
    pool.drive([judge(SQUARE, ASSERT) for _ in range(10)])
    pool.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_unfinished_run_does_not_outlive_an_error(private_pool: Pool) -> None:
    def failing() -> Task:
        yield from judge(SQUARE, CALL)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        private_pool.drive([judge("import time\ntime.sleep(60)", CALL), failing()])
    assert private_pool.runs == {}
    assert verdict(private_pool, SQUARE, CALL) == "passed"


def descendants(pid: int) -> int:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(children) + sum(descendants(int(child)) for child in children)
    return 0


@pytest.mark.slow
def test_twenty_thousand_runs_leave_nothing_behind(private_pool: Pool) -> None:
    def resident() -> float:
        pids = [os.getpid(), *(server.process.pid for server in private_pool.servers)]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20 for pid in pids)

    private_pool.drive([judge(SQUARE, CALL) for _ in range(200)])
    memory, descriptors = resident(), len(os.listdir("/proc/self/fd"))
    processes = [descendants(server.process.pid) for server in private_pool.servers]
    for _ in range(20):
        assert all(f.word == "passed" for f in private_pool.drive([judge(SQUARE, CALL) for _ in range(1000)]))
    assert private_pool.faults == {}
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert [descendants(server.process.pid) for server in private_pool.servers] == processes
    assert resident() - memory < 20
    assert private_pool.runs == private_pool.by_part == private_pool.by_pipe == {}


@pytest.mark.slow
def test_a_run_costs_no_more_than_five_milliseconds_of_cpu_or_eight_in_webassembly(private_pool: Pool) -> None:
    benchmark = Path(__file__).parents[3] / "benchmarks" / "jail.py"
    most = "8" if private_pool.tier == "wasm" else "5"
    command = [sys.executable, str(benchmark), "--tier", private_pool.tier, "--runs", "300", "--assert-cpu", most]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
