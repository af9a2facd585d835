"""What makes a bare interpreter the one that programs expect: the fork server's, and the one made of WebAssembly."""

import builtins
import importlib
import io
import sys
import time
from collections.abc import Callable, Sequence

# Imported once, so that programs find them at once; in the seccomp tier, which refuses all paths, these are all.
USUAL = [
    "__future__", "abc", "array", "bisect", "builtins", "cmath", "collections", "collections.abc", "copy",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json",
    "math", "numbers", "operator", "random", "re", "statistics", "string", "struct", "sys", "textwrap",
    "threading", "time", "traceback", "types", "typing",
]  # fmt: skip
ALL = [
    "_strptime", "argparse", "ast", "base64", "binascii", "calendar", "codecs", "colorsys", "concurrent.futures",
    "concurrent.futures.thread", "contextlib", "cProfile", "csv", "ctypes", "difflib", "dis", "encodings.ascii",
    "encodings.idna", "encodings.latin_1", "encodings.utf_16", "encodings.utf_32", "fileinput", "fnmatch",
    "graphlib", "hashlib", "hmac", "html", "inspect", "ipaddress", "keyword", "linecache", "locale", "logging",
    "mmap", "multiprocessing", "opcode", "pickle", "pprint", "queue", "secrets", "shlex", "signal", "socket",
    "stat", "string", "subprocess", "tempfile", "timeit", "tokenize", "unicodedata", "unittest", "unittest.mock",
    "urllib.parse", "uuid", "warnings", "weakref", "xml.dom", "zlib", "zoneinfo",
]  # fmt: skip


def preload(names: Sequence[str]) -> None:
    """Imports those modules that there are."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def settle() -> None:
    """Makes a started interpreter what programs expect."""
    settle_streams()
    add_site_builtins()
    warm()


def settle_streams() -> None:
    """Makes the standard streams what programs expect; children keep these objects, on descriptors of their own."""
    streams = ((sys.stdin, "surrogateescape"), (sys.stdout, "strict"), (sys.stderr, "backslashreplace"))
    for stream, errors in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def add_site_builtins() -> None:
    """The names that programs are used to and that come from `site`, which is not loaded."""
    quitter: Callable[[str, str], object] = importlib.import_module("_sitebuiltins").Quitter
    for name in ("exit", "quit"):
        setattr(builtins, name, quitter(name, "Ctrl-D (i.e. EOF)"))


def warm() -> None:
    """Does once what every child would otherwise do for the first time: fills caches that are shared by forking."""
    exec(compile("x = [1]", "<warm>", "exec", dont_inherit=True), {})
    importlib.invalidate_caches()
    time.time()
    sys.path[:] = [path for path in sys.path if path]
