"""What happens in a forked child: it reads its job, confines itself for good, and only then meets untrusted code.

A *candidate* runs a program: as a script, or answering calls of its functions. A *judge* runs tests and asks the
candidate, in another child, through two pipes. Neither holds anything that the other must not know. What a candidate
writes on its pipe is only ever taken for answers, so it has nothing to gain from writing something else.
"""

import atexit
import builtins
import io
import marshal
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any, NoReturn, Protocol

from soarctl_code.jail import wire
from soarctl_code.jail.wire import ASK, JOB, REPLY, RESULT

OWN_CALLS = 2  # on the stack of a program: exec, and what calls it
end = os._exit  # programs like to replace the name in os


class Confine(Protocol):
    """Binds the process to its tier and limits, for good; returns its pid as seen from outside."""

    def __call__(self, limits: dict[str, int], *, scratch: bool) -> int: ...


def serve_job(confine: Confine) -> NoReturn:
    """Reads the job, confines this process and does what the job says."""
    job = marshal.loads(read_job())
    begin(job, confine)
    do(job)


def begin(job: dict[str, Any], confine: Confine) -> None:
    """Confines this process as the job wants it and says so, or why that fails."""
    try:
        pid = confine(job["limits"], scratch=job["role"] == "candidate")
    except BaseException as error:
        wire.send(RESULT, ["fault", f"{type(error).__name__}: {error}"[:500]])
        end(70)
    os.write(RESULT, wire.framed(b'["ready","%x"]' % pid))


def do(job: dict[str, Any]) -> NoReturn:
    """Does what the job says, in a process that is confined."""
    random.seed(job["seed"])
    try:
        if job["role"] == "judge":
            Judge(job).run()
        else:
            Candidate(job).run()
    except BaseException:
        # Only after the stack has been torn to pieces, by a recursion limit of a few frames say.
        end(71)
    end(0)


def read_job() -> bytes:
    """The job comes from the supervisor, which is trusted; as JSON it would take three times as long to read."""
    size = os.fstat(JOB).st_size
    data = os.pread(JOB, size, 0)
    os.close(JOB)
    return data


class Candidate:
    """A program under test."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.preamble: str = job["preamble"]
        self.source: str = job["program"]
        self.mode: str = job["mode"]
        self.calls: list[list[Any]] = job.get("calls", [])
        self.compiled = False
        self.given: dict[str, Any] = {}
        self.main = ModuleType("__main__")
        self.main.__dict__.update(__builtins__=__builtins__, __file__="program.py")
        sys.modules["__main__"] = self.main
        sys.argv = ["program.py"]
        # What is below the program on the stack is none of its own depth.
        sys.setrecursionlimit(sys.getrecursionlimit() + depth(sys._getframe()) + OWN_CALLS)  # pyright: ignore[reportPrivateUsage]
        if self.mode == "script" and "/dev/stdin" in self.source:
            builtins.open = open_input

    def run(self) -> NoReturn:
        status, error = self.execute()
        if error is not None and not isinstance(error, SystemExit):
            unparsed = isinstance(error, SyntaxError) and not self.compiled
            wire.send(RESULT, ["unparsed" if unparsed else "raise", type(error).__name__])
        if self.mode == "script":
            end(finish(status, self.main))
        if error is not None:
            leave(status)
        if self.mode == "call":
            for name, arguments in self.calls:
                wire.send(RESULT, self.answer(name, arguments, {}))
        else:
            self.answer_calls()
        leave(0)

    def execute(self) -> tuple[int, BaseException | None]:
        """Runs the source as the main module: its exit status and what it died of."""
        try:
            # Each by itself: a program may begin with imports from __future__.
            exec(compile(self.preamble, "<preamble>", "exec", dont_inherit=True), self.main.__dict__)
            self.given = dict(self.main.__dict__)
            code = compile(self.source, "<program>", "exec", dont_inherit=True)
            self.compiled = True
            exec(code, self.main.__dict__)
        except SystemExit as error:
            return exit_status(error), error
        except BaseException as error:
            show(error)
            return 1, error
        return 0, None

    def answer(self, name: str, arguments: list[wire.Tree], keywords: dict[str, wire.Tree]) -> wire.Tree:
        """Calls one function: `["value", tree]`, `["raise", type, text]`, `["missing", name]` or `["large", ...]`."""
        try:
            function = self.function(name)
            if function is None:
                return ["missing", name]
            values = [wire.decode(tree) for tree in arguments]
            result = function(*values, **{key: wire.decode(tree) for key, tree in keywords.items()})
            return ["value", wire.encode(result)]
        except SystemExit as error:
            end(exit_status(error))
        except wire.TooLarge:
            return ["large", "TooLarge"]
        except BaseException as error:
            text = error.args[0] if error.args and type(error.args[0]) is str else ""
            return ["raise", type(error).__name__, text[:1000]]

    def function(self, name: str) -> Any:
        """A function of the program, or a method of its class `Solution` as some problem sets ask for.

        Assertions may also call a helper that the task gives. The names that the preamble of a problem with calls
        imports are no answer.
        """
        function, given = self.main.__dict__.get(name), self.given.get(name)
        if function is None or function is given:
            solution = self.main.__dict__.get("Solution")
            function = None if solution is None else getattr(solution(), name, None)
        return given if function is None and self.mode == "serve" else function

    def answer_calls(self) -> None:
        """Answers the judge until it hangs up."""
        while True:
            try:
                request = wire.receive(ASK, wire.ARGUMENTS)
            except EOFError:
                return
            name, arguments, keywords = request
            answer = self.answer(name, arguments[1:], dict(zip(keywords[1::2], keywords[2::2], strict=True)))
            reply = wire.dumps(answer)
            wire.write(REPLY, reply if len(reply) <= wire.SIZE else wire.dumps(["large", "TooLarge"]))


def exit_status(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def show(error: BaseException) -> None:
    """The traceback on stderr, as an interpreter would; our own frame at its head is none of the program's."""
    try:
        own = error.__traceback__
        traceback.print_exception(error.with_traceback(own and own.tb_next), limit=-20)
    except BaseException:
        os.write(2, type(error).__name__.encode("ascii", "replace"))


def leave(status: int) -> NoReturn:
    """Ends at once, and shows what was said on stderr."""
    try:
        sys.stderr.flush()
    finally:
        end(status)


def finish(status: int, main: ModuleType) -> int:
    """What an interpreter does at its end: waits for threads, runs exit hooks, flushes what was left open."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        flush(sys.stdout)
        for stream in (sys.__stdout__, *main.__dict__.values()):
            if isinstance(stream, io.IOBase):
                flush(stream)
    except BaseException as error:
        show(error)
        return status or 1
    return status


def flush(stream: Any) -> None:
    """Writes out what a stream holds back; one that is closed, or none at all, holds nothing."""
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


def open_input(file: Any, *arguments: Any, **keywords: Any) -> Any:
    """As `open`, and with /dev/stdin, which a tier without paths has only as a descriptor."""
    return io.open(0 if file == "/dev/stdin" else file, *arguments, **keywords)  # noqa: UP020 - that is replaced


def depth(frame: FrameType | None) -> int:
    """Frames on the stack, from this one downwards."""
    return 0 if frame is None else 1 + depth(frame.f_back)


class Raised(Exception):
    """The candidate raised something that is no builtin exception."""


class Gone(BaseException):
    """The candidate does not answer any more."""


class Judge:
    """Tests that ask a candidate in another process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.tests: list[str] = job["tests"]
        self.setup: str = job.get("setup", "")
        self.names: list[str] = job["names"]
        self.token: str = job["token"]
        self.raised: list[BaseException] = []
        self.missing = False
        self.large = False
        self.gone = False
        self.fault = ""
        self.answers = 0

    def run(self) -> None:
        main = ModuleType("__main__")
        sys.modules["__main__"] = main
        main.__dict__.update({name: self.proxy(name) for name in self.names}, __builtins__=__builtins__)
        if self.setup:
            verdict = self.run_test(self.setup, main)
            if verdict[0] not in ("passed", "unasked"):
                self.report([["invalid", f"set-up: {verdict[1]}"]] * len(self.tests))
                return
        self.report([self.run_test(test, main) for test in self.tests])

    def report(self, verdicts: list[list[str]]) -> None:
        wire.send(RESULT, ["verdicts", self.token, verdicts])

    def proxy(self, name: str) -> Callable[..., Any]:
        """A function that asks the candidate to call its function of that name."""

        def ask(*arguments: Any, **keywords: Any) -> Any:
            most = wire.ARGUMENTS
            given = [wire.encode(values, most // 4) for values in (list(arguments), keywords)]
            if kind := wire.opaque_part(given):
                self.fault = f"a {kind} as an argument does not cross"
                raise wire.Uncrossable
            request = wire.dumps([name, *given])
            if len(request) > most:
                raise wire.TooLarge
            try:
                wire.write(ASK, request)
                reply = wire.receive(REPLY)
                self.answers += 1
                if reply[0] == "value":
                    return wire.decode(reply[1])
                error = self.exception(reply)
            except (EOFError, BrokenPipeError, wire.Undecodable, TypeError, IndexError, KeyError):
                self.gone = True
                raise Gone from None
            raise error

        ask.__name__ = ask.__qualname__ = name
        return ask

    def exception(self, reply: list[Any]) -> BaseException:
        """The exception that the candidate says it met, as one of the same builtin type."""
        self.missing |= reply[0] == "missing"
        self.large |= reply[0] == "large"
        kind = builtins.__dict__.get(str(reply[1]))
        text = str(reply[2]) if len(reply) > 2 else ""
        # StopIteration would end a test's all(map(...)) with nothing looked at.
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, StopIteration):
            kind = Raised
            text = f"{str(reply[1])[:80]}: {text}"
        try:
            error = kind(text)
        except TypeError:  # UnicodeDecodeError wants five arguments
            error = Raised(text)
        self.raised.append(error)
        return error

    def run_test(self, source: str, main: ModuleType) -> list[str]:
        """One test: passed, failed, raised, missing, large, gone, unasked or invalid, with a word of explanation."""
        self.fault = ""
        try:
            code = compile(source, "<test>", "exec", dont_inherit=True)
        except BaseException as error:
            return ["invalid", type(error).__name__]
        try:
            exec(code, main.__dict__)
        except Gone:
            return ["gone", ""]
        except BaseException as error:
            return ["gone", ""] if self.gone else self.blame(error)
        if self.fault:
            return ["invalid", self.fault]
        if self.gone:  # and the test caught it
            return ["gone", ""]
        return ["passed", ""] if self.answers > 0 else ["unasked", ""]

    def blame(self, error: BaseException) -> list[str]:
        """Whose fault it is that a test ended with an exception."""
        name = type(error).__name__
        if self.fault:
            return ["invalid", self.fault]
        if any(error is known for known in self.raised):
            return ["large" if self.large else "missing" if self.missing else "raised", name]
        if isinstance(error, AssertionError):
            return ["failed", name] if self.answers else ["invalid", name]
        # A test that stumbles over an answer (len of None, say) has found it wrong; one that raises by itself, names
        # what does not exist or stumbles before it has asked anything is no test.
        own = isinstance(error, (NameError, ImportError, SystemExit, KeyboardInterrupt, wire.TooLarge))
        if own or not self.answers or raised_explicitly(error):
            return ["invalid", name]
        return ["failed", name]


def raised_explicitly(error: BaseException) -> bool:
    """Whether a `raise` statement of the test itself raised it."""
    import dis

    step = error.__traceback__
    if step is None:
        return True
    while step.tb_next is not None:
        step = step.tb_next
    if step.tb_frame.f_code.co_filename != "<test>":
        return False
    operations = {i.offset: i.opname for i in dis.get_instructions(step.tb_frame.f_code)}
    return operations.get(step.tb_lasti) == "RAISE_VARARGS"
