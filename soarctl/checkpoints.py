"""Weights on disk: safetensors with a manifest of hashes. A kill at any instruction leaves a good state.

A checkpoint is a directory. It is written aside, flushed to the disk, and renamed into place, so that a directory
with the final name is always whole. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from soarctl.api import Tensors
from soarctl.errors import CheckpointError, disk_errors

FORMAT = 1
_MANIFEST = "manifest.json"


def write(directory: Path, tensors: Mapping[str, Tensors], facts: Mapping[str, Any]) -> str:
    """Writes one safetensors file for each entry of `tensors`, replacing what stood at `directory`.

    Args:
        directory: the checkpoint's final name.
        tensors: file stem -> tensors.
        facts: plain JSON values for people and for checks on loading.

    Returns:
        SHA-256 of the manifest, which names the hash of every file.

    Raises:
        RunError: the disk is full or not writable; what stood there before is still there.
    """
    aside = directory.with_name(f".{directory.name}.partial")
    with disk_errors(directory):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        files: dict[str, dict[str, Any]] = {}
        for stem, named in tensors.items():
            data = save({name: named[name] for name in sorted(named)})
            _write_through(aside / f"{stem}.safetensors", data)
            files[f"{stem}.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest = json.dumps({"format": FORMAT, "facts": facts, "files": files}, indent=1, sort_keys=True).encode()
        _write_through(aside / _MANIFEST, manifest)
        _flush_directory(aside)
        if directory.exists():
            # Only a step that is done again writes over a checkpoint, and it writes the same bytes.
            shutil.rmtree(directory)
        os.replace(aside, directory)
        _flush_directory(directory.parent)
    return hashlib.sha256(manifest).hexdigest()


def read(directory: Path, digest: str | None = None) -> dict[str, dict[str, Any]]:
    """File stem -> tensors of a checkpoint, after checking every byte against the manifest.

    Args:
        directory: the checkpoint.
        digest: SHA-256 that the manifest must have.

    Raises:
        CheckpointError: something is missing, truncated or altered.
    """
    manifest = _read(directory / _MANIFEST)
    if digest is not None and hashlib.sha256(manifest).hexdigest() != digest:
        raise CheckpointError("the manifest is not the one that the ledger recorded", at=str(directory / _MANIFEST))
    try:
        listed = json.loads(manifest)
        version, files = listed["format"], dict(listed["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the manifest cannot be read: {error}", at=str(directory / _MANIFEST)) from error
    if version != FORMAT:
        raise CheckpointError(f"format {version}; this soarctl reads format {FORMAT}", at=str(directory))
    if any(Path(name).name != name for name in files):
        raise CheckpointError("the manifest names a file outside its directory", at=str(directory / _MANIFEST))
    return {Path(name).stem: _read_tensors(directory / name, entry) for name, entry in files.items()}


def _read_tensors(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    data = _read(path)
    if len(data) != entry.get("bytes"):
        raise CheckpointError(
            f"{len(data)} bytes where the manifest says {entry.get('bytes')}: truncated", at=str(path)
        )
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise CheckpointError("the content does not have the hash of the manifest: damaged or altered", at=str(path))
    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"not a safetensors file: {error}", at=str(path)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror or error}", at=str(path)) from error


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
