"""vLLM in this process, which is sent the trainer's policies and samples from them."""

import importlib
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from soarctl.api import Continuation, InferenceEngine, Policy, Request, SamplerError, Sampling, Served
from soarctl.trainers.shipped_adapters import AdapterFolder
from soarctl.trainers.vllm_policies import Adapters, AllWeights, Policies
from soarctl.trainers.vllm_sampler import VllmSampler

_engines = dict[tuple[str, Served], "VllmEngine"]()


def vllm_engine(options: VllmSampler, model: Served) -> "VllmEngine":
    """One engine for all runs of a process over the same model: a study makes several, and memory is for one."""
    key = (options.model_dump_json(), model)
    if key not in _engines:
        _engines[key] = VllmEngine(options, model)
    return _engines[key]


class VllmEngine(InferenceEngine):
    """An engine with its policies beside or in it."""

    def __init__(self, options: VllmSampler, model: Served) -> None:
        self._model = model
        self._vllm = _import(options)
        self._policies = _policies(options, model, self._vllm)
        largest = None if model.max_length == sys.maxsize else model.max_length
        self._max_length = options.max_length or largest
        on_cpu: dict[str, Any] = {}
        if model.device == "cpu":
            # A prompt that is read in two parts makes vLLM wind back the random numbers of its request, which CPU
            # generators cannot.
            tokens = max(8192, self._max_length or 0)
            on_cpu = {"enable_chunked_prefill": False, "max_num_batched_tokens": tokens}
        with _failures("cannot start"), _own_threads():
            self._llm = self._vllm.LLM(
                model=str(model.directory),
                trust_remote_code=model.trust_remote_code,
                dtype=model.dtype,
                # Its own defaults for sampling would be mixed with ours.
                generation_config="vllm",
                # Of the distribution that is sampled from, temperature and top_p included.
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                max_model_len=self._max_length,
                max_num_seqs=options.max_sequences,
                gpu_memory_utilization=options.gpu_memory_utilization,
                enforce_eager=model.device == "cpu" or not options.cuda_graphs,
                disable_log_stats=True,
                **self._policies.options,
                **on_cpu,
            )

    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        with _failures("cannot take up a policy"):
            self._policies.update(self._llm, added, removed)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Continuation]]:
        for request in requests:
            if self._max_length and len(request.prompt_ids) + request.max_new_tokens > self._max_length:
                raise SamplerError(
                    f"a prompt of {len(request.prompt_ids)} tokens and {request.max_new_tokens} to come are more than "
                    f"{self._max_length}",
                    at="trainer.sampler.max_length",
                    hint="raise it, or lower max_new_tokens",
                )
        with _failures("failed while sampling"):
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(request.prompt_ids)} for request in requests],
                [self._vllm.SamplingParams(**sampling_options(r, sampling, self._model)) for r in requests],
                lora_request=self._policies.named([request.policy for request in requests]),
                use_tqdm=False,
            )
        return [[_continuation(sample) for sample in output.outputs] for output in outputs]


def _policies(options: VllmSampler, model: Served, vllm: Any) -> Policies:
    if model.adapter is None:
        return AllWeights(getattr(torch, model.dtype))
    folder = AdapterFolder(options.adapters, model, model.adapter)
    return Adapters(folder, model.adapter, model.width, vllm.lora.request.LoRARequest)


def sampling_options(request: Request, sampling: Sampling, model: Served) -> dict[str, Any]:
    """What vLLM is asked for, engine and server alike, but for what they call differently."""
    return {
        "n": request.samples,
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
        # The end is ours to decide: its own idea of the tokens that end a text may be another.
        "ignore_eos": True,
        "stop_token_ids": list(model.eos_ids),
        "stop": list(sampling.stop),
        "include_stop_str_in_output": True,
        "logprobs": 0,  # of the sampled token, and of no others
    }


def _continuation(sample: Any) -> Continuation:
    logprobs = tuple(found[token].logprob for token, found in zip(sample.token_ids, sample.logprobs, strict=True))
    return Continuation(tuple(sample.token_ids), logprobs)


def _import(options: VllmSampler) -> Any:
    # In a process of its own the engine would outlive a run that is killed.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(options.cpu_cache_gib))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        importlib.import_module("vllm.lora.request")
        return importlib.import_module("vllm")
    except ImportError as error:
        raise SamplerError(
            f"vLLM cannot be imported: {error}",
            at="trainer.sampler.plugin",
            hint='pip install "soarctl[vllm]", or give the url of a server',
        ) from error


@contextmanager
def _failures(what: str) -> Generator[None]:
    """Around vLLM, which may raise anything."""
    try:
        yield
    except SamplerError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SamplerError(f"vLLM {what}: {first}", at="trainer.sampler") from error


@contextmanager
def _own_threads() -> Generator[None]:
    # On a CPU vLLM replaces this function of torch by one that does nothing; the trainer is in the same process.
    before = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = before
