"""From a spec's `model` section to a model and a tokenizer."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from soarctl.api import ModelError, ModelSource
from soarctl.trainers.model_place import local_place

WEIGHTS = "*.safetensors"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A loaded base model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    directory: Path
    commit: str | None
    """Of the hub, where it came from there."""

    def eos_ids(self) -> list[int]:
        """All tokens that end a text."""
        ended: int | list[int] | None = getattr(self.model.generation_config, "eos_token_id", None)
        if ended is None:
            ended = cast(int | None, self.tokenizer.eos_token_id)
        if ended is None:
            return []
        return [ended] if isinstance(ended, int) else ended

    def weight_hashes(self) -> dict[str, str]:
        """SHA-256 of each weights file, by name."""
        hashes = dict[str, str]()
        for path in sorted(self.directory.glob(WEIGHTS)):
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return hashes


def load(source: ModelSource, dtype: torch.dtype, attention: str | None) -> BaseModel:
    """Loads weights from safetensors and the tokenizer beside them.

    Args:
        source: which model.
        dtype: of its weights.
        attention: transformers' name for how attention is done; None for its own choice.

    Raises:
        ModelError: there is no such model, it cannot be reached, or it is not one that can be used.
    """
    place = local_place(source.base)
    directory, commit = (place, None) if place else _from_hub(source)
    _check(directory, source.base)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=source.trust_remote_code)
            model = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=source.trust_remote_code,
            )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        hint = None
        if "trust_remote_code" in str(error):
            hint = "read the code in the model's repository, then set model.trust_remote_code: true"
        raise ModelError(
            f'"{source.base}" cannot be loaded: {_first_line(error)}', at="model.base", hint=hint
        ) from error
    if getattr(model, "_is_stateful", False):
        raise ModelError(
            f'"{source.base}" is a {model.config.model_type}, which keeps a recurrent state',
            at="model.base",
            hint="the accelerate trainer decodes attention models only",
        )
    return BaseModel(model.eval().requires_grad_(False), tokenizer, directory, commit)


def _from_hub(source: ModelSource) -> tuple[Path, str]:
    """The model's directory, fetched if need be, and its commit."""
    try:
        with quiet():
            directory = Path(
                huggingface_hub.snapshot_download(
                    source.base,
                    revision=source.revision,
                    allow_patterns=["*.json", "*.txt", "*.model", "*.jinja", "*.py", WEIGHTS],
                    # Other formats of the same weights.
                    ignore_patterns="*/*",
                )
            )
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f'"{source.base}" is neither a directory here nor in the cache, and the hub cannot be reached',
            at="model.base",
            hint="give a local directory, or fetch it where there is a network: hf download " + source.base,
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f'"{source.base}" cannot be fetched: {_first_line(error)}',
            at="model.base",
            hint="a gated model needs `hf auth login` and its licence accepted on its page",
        ) from error
    # The cache keeps each commit in a folder of its name.
    return directory, directory.name


def _check(directory: Path, base: str) -> None:
    if not (directory / "config.json").is_file():
        raise ModelError(f'"{base}" has no config.json', at="model.base", hint=f"looked in {directory}")
    if any(directory.glob(WEIGHTS)):
        return
    if any(directory.glob("*.bin")):
        raise ModelError(
            f'"{base}" has its weights as pickles (.bin) only, which can run code when they are read',
            at="model.base",
            hint="convert it where you trust it: model.save_pretrained writes safetensors",
        )
    raise ModelError(f'"{base}" has no {WEIGHTS}', at="model.base", hint=f"looked in {directory}")


@contextmanager
def quiet() -> Generator[None]:
    """Without transformers' progress bars and notices."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
