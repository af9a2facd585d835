"""Adapters as files that vLLM loads, one folder for each name, in memory where there is room for files."""

import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch

from soarctl.api import AdapterShape, Policy, SamplerError, Served
from soarctl.trainers.export import write_adapter

SHARED_MEMORY = Path("/dev/shm")


class AdapterFolder:
    """PEFT adapters of one base model, gone when the process ends."""

    def __init__(self, place: Path | None, model: Served, shape: AdapterShape) -> None:
        self._model, self._shape = model, shape
        self._dtype: torch.dtype = getattr(torch, model.dtype)
        if place is None and SHARED_MEMORY.is_dir():
            place = SHARED_MEMORY
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="soarctl-adapters-", dir=place))
        except OSError as error:
            raise SamplerError(
                f"cannot make a folder for adapters in {place}: {error.strerror}", at="trainer.sampler.adapters"
            ) from error

        # Adapters are large, and in shared memory they would stay for as long as the machine runs.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def write(self, name: str, policy: Policy) -> Path:
        """The folder of an adapter that was not there before."""
        folder = self.path(name)
        # An engine rounds them to the dtype of its weights anyway; rounded here they are half as large.
        tensors = {key: torch.from_numpy(np.array(array)).to(self._dtype) for key, array in policy.tensors.items()}
        try:
            write_adapter(folder, tensors, self._shape, str(self._model.directory), None)
        except OSError as error:
            raise SamplerError(
                f"cannot write an adapter: {error.strerror or error}",
                at=str(folder),
                hint="set trainer.sampler.adapters to a folder with more room",
            ) from error
        return folder

    def path(self, name: str) -> Path:
        return self._folder / name

    def forget(self, name: str) -> None:
        """Removes the files of an adapter."""
        shutil.rmtree(self.path(name))
