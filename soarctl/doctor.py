"""What this machine has for a run, what is missing, and what to type next."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from soarctl import __version__, plugins
from soarctl.api import Domain, Finding, Trainer
from soarctl.errors import PluginError, RunError, SoarError
from soarctl.history import Progress, overview
from soarctl.runs import ROOT, newest, open_run

NEEDED = ("torch", "transformers", "accelerate", "peft", "safetensors", "numpy", "pydantic")
OPTIONAL = ("vllm", "pyarrow", "datasets", "math-verify", "tensorboard", "trackio", "wandb", "mlflow")
QUICKSTART = Path("specs/quickstart.yaml")
SPEC_FILE = "spec.yaml"
_MEMORY_NEEDED = 2e9
_DISK_NEEDED = 1e9


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and what to do."""

    findings: Sequence[Finding]
    next_command: str

    @property
    def healthy(self) -> bool:
        return not any(finding.problem for finding in self.findings)


def diagnose(spec: str | None = None, *, deep: bool = False) -> Diagnosis:
    """Looks at the machine and the installation.

    Args:
        spec: ask this spec's domain, with its options; otherwise every installed one, with its defaults.
        deep: import torch and every trainer as well, which takes seconds, to see whether they work.

    Raises:
        SoarError: the spec is wrong.
    """
    findings = [
        Finding("soarctl", __version__),
        Finding("python", f"{platform.python_version()} at {sys.executable}"),
        Finding("system", platform.platform()),
        Finding("cores", str(_cores())),
        _memory(),
        _disk(),
        *(_package(name, needed=True) for name in NEEDED),
        *(_package(name, needed=False) for name in OPTIONAL),
        *([_torch()] if deep else []),
        *_plugins(deep),
        *(_domain_of(spec) if spec else _installed_domains()),
        _runs(),
    ]
    return Diagnosis(findings, _next_command(findings))


def _cores() -> int:
    # What this process may use, which in a container is less than what there is.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "unknown")
    # Without a container's limit the file is missing or says "max".
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    problem = "the quickstart needs 2 GB" if total < _MEMORY_NEEDED else None
    return Finding("memory", f"{total / 1e9:.1f} GB", problem)


def _disk() -> Finding:
    free = shutil.disk_usage(_existing(ROOT)).free
    problem = "runs want 1 GB or more" if free < _DISK_NEEDED else None
    return Finding("disk", f"{free / 1e9:.1f} GB free for runs", problem)


def _package(name: str, *, needed: bool) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", f"pip install {name}" if needed else None)


def _torch() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken installation fails in any way it likes
        return Finding("torch works", "no", f"{type(error).__name__}: {error}")
    if not torch.cuda.is_available():
        return Finding("torch works", "on CPU; no CUDA device")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("torch works", f"with CUDA {torch.version.cuda}: {', '.join(names)}")


def _plugins(deep: bool) -> list[Finding]:
    findings: list[Finding] = []
    for plugin in plugins.describe():
        problem = plugin.problem
        kind = next(kind for kind in plugins.GROUPS if plugins.section(kind) == plugin.kind)
        # Trainers may import torch.
        if problem is None and (deep or kind is not Trainer):
            try:
                plugins.load_class(kind, plugin.name)
            except PluginError as error:
                problem = error.message
        findings.append(Finding(f"{plugin.kind} {plugin.name}", f"{plugin.package} {plugin.version}", problem))
    return findings


def _domain_of(spec: str) -> list[Finding]:
    from soarctl.spec_reader import load_spec

    loaded = load_spec(spec)
    return _asked(loaded.spec.domain.plugin, loaded.domain)


def _installed_domains() -> list[Finding]:
    """What those say that work without options. Nobody has asked for one yet, so what it lacks is no problem."""
    found: list[Finding] = []
    for plugin in plugins.describe():
        if plugin.kind == "domain" and plugin.problem is None:
            with suppress(SoarError):  # what is broken is told beside the plug-in's name
                found += _asked(plugin.name, plugins.load(Domain, plugin.name, {}))
    return [Finding(f.what, f"{f.found}: {f.problem}" if f.problem else f.found) for f in found]


def _asked(name: str, domain: Domain) -> list[Finding]:
    """What a domain says about this machine."""
    try:
        return [Finding(f"{name}: {f.what}", f.found, f.problem) for f in domain.checks()]
    except Exception as error:  # the boundary around a plug-in
        return [Finding(f"{name}: checks", "failed", f"{type(error).__name__}: {error}")]


def _runs() -> Finding:
    place = _existing(ROOT)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding("runs/", str(place.resolve()), f"not writable: {error.strerror or error}")
    return Finding("runs/", "writable")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())


def _next_command(findings: Sequence[Finding]) -> str:
    missing = [finding.what for finding in findings if finding.found == "not installed" and finding.problem]
    if missing:
        return f"pip install {' '.join(missing)}"
    try:
        directory = newest()
        with open_run(directory) as ledger:
            run = overview(ledger)
    except RunError:
        return f"soarctl run {QUICKSTART}" if QUICKSTART.exists() else "soarctl schema"
    if run.progress is Progress.INTERRUPTED:
        return f"soarctl run {directory / SPEC_FILE} --out {directory} --resume"
    return f"soarctl show {directory}"
