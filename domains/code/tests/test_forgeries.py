"""Attacks beside the corpus: forged results, lies of objects, ways out, and what would hold up the supervisor."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from soarctl_code.jail import confine, tiers, wire
from soarctl_code.jail.jobs import Job, Limits
from soarctl_code.jail.supervisor import Pool
from soarctl_code.verdicts import Finding, Task, judge

SQUARE = "def solve(x):\n    return x * x\n"
CALL = [{"kind": "call", "fn": "solve", "args": [7], "expected": 49}]
LIMITS = Limits(wall=1.0, cpu=1.0)


@pytest.fixture(scope="module", params=tiers.ISOLATING)
def tier(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(
    scope="module", params=["", *filter(None, os.environ.get("SOARCTL_TEST_PYTHONS", "").split(os.pathsep))]
)
def pool(tier: tiers.Tier, request: pytest.FixtureRequest) -> Iterator[Pool]:
    if not (report := tiers.inspect_tier(tier, request.param)).usable:
        pytest.skip(f"the tier {tier} does not hold here: {report.reason}")
    pool = Pool(tier, python=request.param)
    yield pool
    assert pool.faults == {}
    pool.close()


def asking(*codes: str) -> list[dict[str, Any]]:
    return [{"kind": "assert", "code": code, "names": ["solve"]} for code in codes]


def found(pool: Pool, program: str, tests: list[dict[str, Any]] = CALL) -> Finding:
    return pool.drive([judge(program, tests, limits=LIMITS)])[0]


LIARS = {
    "always equal": "class A:\n    def __eq__(self, o): return True\n    def __hash__(self): return hash(49)\n",
    "an int that says it is 49": (
        "class A(int):\n    def __eq__(self, o): return True\n    def __index__(self): return 49\n"
        "    def __int__(self): return 49\n    def __hash__(self): return 49\n"
    ),
    "a class that lies": "class A:\n    __class__ = property(lambda self: int)\n    def __index__(self): return 49\n",
    "a class that raises": "class A:\n    @property\n    def __class__(self): raise SystemExit(0)\n",
    "a metaclass that lies": (
        "class M(type):\n    def __eq__(cls, o): return True\n    def __hash__(cls): return hash(int)\n"
        "class A(metaclass=M): pass\n"
    ),
    "text that says it is 49": "class A(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\n",
    "truth that ends the process": "import os\nclass A:\n    def __bool__(self): os._exit(0)\n",
    "endless content": "class A(list):\n    def __iter__(self):\n        while True: yield 49\n",
}


@pytest.mark.parametrize("liar", LIARS)
def test_no_object_is_equal_to_plain_data_by_its_own_word(pool: Pool, liar: str) -> None:
    program = f"{LIARS[liar]}def solve(x): return A()\n"
    assert found(pool, program).word != "passed"
    assert found(pool, program, asking("assert solve(7) == 49")).word != "passed"


FRAME = (
    "import json, os\nfrom soarctl_code.jail.wire import RESULT\n"
    "def frame(v):\n    b = json.dumps(v).encode()\n    return len(b).to_bytes(4, 'little') + b\n"
)
FORGERIES = {
    "answers before the real ones": f"{FRAME}os.write(RESULT, frame(['value', True]) * 9)\ndef solve(x): return 0\n",
    "a judge's report": f"{FRAME}os.write(RESULT, frame(['verdicts', '', [['passed', '']]]))\ndef solve(x): return 0\n",
    "a report on every descriptor": (
        f"{FRAME}lies = (['value', True], ['verdicts', '', [['passed', '']]], ['ready', '1'])\n"
        "for fd in range(256):\n    for v in lies:\n"
        "        try: os.write(fd, frame(v))\n        except OSError: pass\ndef solve(x): return 0\n"
    ),
    "a new beginning": f"{FRAME}os.write(RESULT, frame(['ready', '0x1']))\ndef solve(x): return 0\n",
    "a fault of the sandbox": f"{FRAME}os.write(RESULT, frame(['fault', 'try again']))\ndef solve(x): return 0\n",
    "brackets without end": (
        f"{FRAME}os.write(RESULT, (900000).to_bytes(4, 'little') + b'[' * 900000)\ndef solve(x): return 0\n"
    ),
    "every descriptor closed": "import os\nos.closerange(0, 256)\ndef solve(x): return 49\n",
    "a success that ends all": "import os\ndef solve(x): os._exit(0)\n",
    "a success by exit": "import sys\ndef solve(x): sys.exit(0)\n",
    "a thread that goes on": (
        "import os, threading\ndef spin():\n    while True: pass\n"
        "threading.Thread(target=spin).start()\nos._exit(0)\ndef solve(x): return 49\n"
    ),
    "patched comparisons": (
        "import builtins, soarctl_code.jail.wire as w\nbuiltins.isinstance = lambda *_: True\n"
        "w.matches = lambda *_, **__: True\nw.encode = lambda *_: True\ndef solve(x): return 0\n"
    ),
    "what frames and objects know": (
        "import gc, sys\ndef solve(x):\n    seen = [sys._getframe(n).f_locals for n in range(6)] + gc.get_objects()\n"
        "    for o in seen:\n        if type(o) is dict and 'expected' in o: return o['expected']\n    return 0\n"
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_a_program_writes_closes_or_patches_makes_no_pass(pool: Pool, forgery: str) -> None:
    assert found(pool, FORGERIES[forgery]).word != "passed"
    assert found(pool, FORGERIES[forgery], asking("assert solve(7) == 49")).word != "passed"
    assert found(pool, SQUARE).word == "passed"


@pytest.mark.parametrize(
    "verdicts", ["[[]]", "['x']", "'x'", "[['passed']]", "[None]", "[[['x'], 'y']]", "[['passed', '']] * 9"]
)
def test_a_report_that_hostile_tests_forge_is_an_invalid_test_and_no_crash(pool: Pool, verdicts: str) -> None:
    code = (
        f"import gc\n{FRAME}token = next(o for o in gc.get_objects() if type(o).__name__ == 'Judge').token\n"
        f"os.write(RESULT, frame(['verdicts', token, {verdicts}]))\nos._exit(0)"
    )
    assert found(pool, SQUARE, asking(code)).word == "invalid_test"


def test_an_exception_that_ends_loops_does_not_end_those_of_a_test(pool: Pool) -> None:
    tests = asking("assert all(map(lambda n: solve(n) == n * n, range(3)))")
    assert found(pool, SQUARE, tests).word == "passed"
    assert found(pool, "def solve(x):\n    raise StopIteration", tests).word == "runtime_error"


def test_a_test_that_catches_everything_does_not_pass_a_program_that_is_gone(pool: Pool) -> None:
    program = "import os\ndef solve(x):\n    return x if x else os._exit(0)\n"
    tests = asking("assert solve(1) == 1", "try:\n    assert solve(0) == 0\nexcept BaseException:\n    pass")
    assert (found(pool, program, tests).word, found(pool, program, tests).passed) == ("wrong_answer", 1)


def test_a_program_cannot_die_as_if_it_had_been_struck_from_outside(pool: Pool) -> None:
    # These would be repeated, as faults of the sandbox are; the fixture sees that there are none.
    lowered = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass\n"
    assert found(pool, lowered).word == "runtime_error"
    for name in ("SIGKILL", "SIGSTOP"):
        assert found(pool, f"import os, signal\nos.kill(os.getpid(), signal.{name})\n").word == "runtime_error"


def test_a_signal_of_its_own_making_is_no_timeout(pool: Pool) -> None:
    assert found(pool, "import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)\n").word == "runtime_error"


def test_reading_ones_limits_is_allowed(pool: Pool) -> None:
    if pool.tier == "wasm":
        pytest.skip("there is no module for limits")
    program = "import resource\ndef solve(x): return 49 if resource.getrlimit(resource.RLIMIT_CPU)[0] > 0 else 0\n"
    assert found(pool, program).word == "passed"


def test_a_traceback_shows_the_program_and_not_where_the_jail_lies(pool: Pool) -> None:
    detail = found(pool, "def first():\n    raise ValueError('mine')\nfirst()\n").detail
    assert 'File "<program>", line 2, in first' in detail
    assert "soarctl_code" not in detail


def test_a_crowd_of_threads_ends_in_time_and_does_not_hold_up_others(pool: Pool) -> None:
    crowd = (
        "import threading, time\nthreading.stack_size(1 << 16)\n"
        "for _ in range(1500):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "time.sleep(60)\n"
    )
    started = time.monotonic()
    words = [f.word for f in pool.drive(judge(p, CALL, limits=LIMITS) for p in (crowd, SQUARE, SQUARE))]
    assert words[0] in ("timeout", "runtime_error", "memory_limit")
    assert words[1:] == ["passed", "passed"]
    assert time.monotonic() - started < LIMITS.wall + 3


def test_sleepers_that_hold_memory_keep_their_place(pool: Pool) -> None:
    under_way: list[int] = []
    most = 0

    def counted(number: int, program: str) -> Task:
        nonlocal most
        under_way.append(number)
        most = max(most, len(under_way))
        finding = yield from judge(program, CALL, limits=Limits(wall=0.5, cpu=1.0))
        under_way.remove(number)
        return finding

    def words(program: str) -> list[str]:
        nonlocal most
        most = 0
        return [f.word for f in pool.drive(counted(number, program) for number in range(2 * pool.workers))]

    assert words("import time\ntime.sleep(60)") == ["timeout"] * 2 * pool.workers
    assert most > pool.workers
    assert words("import time\nheld = b'x' * (100 << 20)\ntime.sleep(60)") == ["timeout"] * 2 * pool.workers
    # On a busy machine one may be seen asleep before it holds anything.
    assert most < 2 * pool.workers


def test_numbers_with_one_hash_do_not_hold_up_the_comparison() -> None:
    modulus = (1 << 61) - 1
    colliding = ["z", *[["i", hex(n * modulus)] for n in range(1, 30_000)]]
    started = time.process_time()
    assert not wire.matches(["s", colliding], {1})
    assert not wire.matches(["d", colliding, True], {1: True})
    assert time.process_time() - started < 2.0


ESCAPES = {  # by architecture: x86_64, aarch64
    "socket": (41, 198), "connect": (42, 203), "sendto": (44, 206), "sendmsg": (46, 211), "socketpair": (53, 199),
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "wait4": (61, 260),
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "timer_create": (222, 107), "io_uring_setup": (425, 425), "io_setup": (206, 0),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "userfaultfd": (323, 282), "bpf": (321, 280),
    "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "fsopen": (430, 430), "open_tree": (428, 428), "move_mount": (429, 429), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "link": (86, None), "symlink": (88, None), "linkat": (265, 37),
    "symlinkat": (266, 36), "mknod": (133, None), "chmod": (90, None), "fchmod": (91, 52), "chown": (92, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    "splice": (275, 76), "vmsplice": (278, 75), "sendfile": (40, 71), "copy_file_range": (326, 285), "flock": (73, 32),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "personality": (135, 92), "setuid": (105, 146),
    "setgroups": (116, 159), "seccomp": (317, 277), "landlock_create_ruleset": (444, 444), "modify_ldt": (154, None),
    "iopl": (172, None), "reboot": (169, 142), "kexec_load": (246, 104), "init_module": (175, 105),
    "swapon": (167, 224), "acct": (163, 89), "quotactl": (179, 60), "sethostname": (170, 161),
    "settimeofday": (164, 170), "adjtimex": (159, 171), "mq_open": (240, 180), "remap_file_pages": (216, 234),
    "openat2": (437, 437), "process_madvise": (440, 440), "setsid": (112, 157), "setpgid": (109, 154),
    "tkill": (200, 130), "syslog": (103, 116), "mlockall": (151, 230),
}  # fmt: skip


def test_calls_that_lead_out_are_refused(pool: Pool) -> None:
    if pool.tier == "wasm":
        pytest.skip("there are no system calls; what there is instead is in test_wasi.py")
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef solve(calls):\n    allowed = []\n"
        "    for name, number in calls.items():\n        ctypes.set_errno(0)\n"
        "        result = libc.syscall(number, -1, -1, -1, -1, -1, -1)\n"
        "        if result != -1 or ctypes.get_errno() != 1: allowed.append(name)\n"
        "    return allowed\n"
    )
    column = ["x86_64", "aarch64"].index(confine.ARCH)
    calls = {name: numbers[column] for name, numbers in ESCAPES.items() if numbers[column] is not None}
    tests = [{"kind": "call", "fn": "solve", "args": [calls], "expected": []}]
    finding = found(pool, program, tests)
    assert finding.word == "passed", finding.detail


def test_what_other_processes_hold_open_cannot_be_opened(pool: Pool) -> None:
    program = (
        "import os\ndef solve(pids):\n    opened = []\n    for pid in [*pids, getattr(os, 'getppid', int)()]:\n"
        "        for name in ['mem', 'maps', 'environ', *(f'fd/{n}' for n in range(64))]:\n"
        "            try:\n                os.close(os.open(f'/proc/{pid}/{name}', os.O_RDONLY | os.O_NONBLOCK))\n"
        "                opened.append(f'{pid} {name}')\n            except OSError: pass\n    return opened\n"
    )
    pids = [os.getpid(), *(server.process.pid for server in pool.servers)]
    finding = found(pool, program, [{"kind": "call", "fn": "solve", "args": [pids], "expected": []}])
    assert finding.word == "passed", finding.detail


def test_a_forked_child_is_a_whole_interpreter(pool: Pool) -> None:
    """The server forks without Python's own hooks; what they would have done is done, or is not needed."""
    if pool.tier == "wasm":
        pytest.skip("there are no threads and no signals")
    program = (
        "import os, random, signal, tempfile, threading, time\ndef solve(x):\n"
        "    ran = []\n    t = threading.Thread(target=lambda: ran.append(threading.get_native_id()))\n"
        "    t.start(); t.join()\n"
        "    signal.signal(signal.SIGALRM, lambda *_: ran.append('alarm'))\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.01)\n    time.sleep(0.1)\n"
        "    lock = threading.Lock()\n    free = lock.acquire(timeout=1)\n"
        "    main = threading.current_thread() is threading.main_thread()\n"
        "    own = os.getpid() == threading.get_native_id()\n"
        "    return [len(ran), ran[1:], free, main, threading.active_count(), own]\n"
    )
    expected = [2, ["alarm"], True, True, 1, True]
    tests = [{"kind": "call", "fn": "solve", "args": [0], "expected": expected}]
    assert found(pool, program, tests).word == "passed"


def test_secrets_differ_between_runs_though_the_interpreter_is_forked(pool: Pool) -> None:
    program = "import random, secrets\nprint(secrets.token_hex(8), random.SystemRandom().random())"
    shown = [ran.stdout for ran in pool.drive(tiers.one_run(Job(program, "script")) for _ in range(4))]
    assert len(set(shown)) == 4
    assert all(shown)
