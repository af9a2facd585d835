"""vLLM in this process: every policy is a LoRA adapter of one engine, and requests of all of them share its batches."""

import importlib
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch

from soarctl.api import Continuation, InferenceEngine, Policy, Request, SamplerError, Sampling, Served
from soarctl.trainers.shipped_adapters import AdapterFolder
from soarctl.trainers.vllm_sampler import VllmSampler, largest_rank

_engines = dict[tuple[str, Served], "VllmEngine"]()


def vllm_engine(options: VllmSampler, model: Served) -> "VllmEngine":
    """One engine for all runs of a process over the same model: a study makes several, and memory is for one."""
    key = (options.model_dump_json(), model)
    if key not in _engines:
        _engines[key] = VllmEngine(options, model)
    return _engines[key]


class VllmEngine(InferenceEngine):
    """An engine with room for a fleet of adapters.

    Requests always name an adapter: rows without one are wrong where others of their batch have one (vLLM on CPU), so
    the base model is sent as an adapter too, which is zero.
    """

    def __init__(self, options: VllmSampler, model: Served) -> None:
        self._model = model
        self._adapters = AdapterFolder(options.adapters, model)
        self._numbers = count(1)
        self._held = dict[str, Any]()
        """vLLM's request for each adapter, by name."""
        self._vllm = _import(options)
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
                enable_lora=True,
                max_loras=model.width,
                max_cpu_loras=2 * model.width,
                max_lora_rank=largest_rank(model.adapter.rank),
                max_model_len=self._max_length,
                max_num_seqs=options.max_sequences,
                gpu_memory_utilization=options.gpu_memory_utilization,
                enforce_eager=model.device == "cpu" or not options.cuda_graphs,
                disable_log_stats=True,
                **on_cpu,
            )

    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        # No request is under way here, so none can be given an adapter that is only half loaded.
        with _failures("cannot take up an adapter"):
            for name in removed:
                self._llm.llm_engine.remove_lora(self._held.pop(name).lora_int_id)
                self._adapters.forget(name)
            for name, policy in added.items():
                path = self._adapters.write(name, policy)
                # Loading under a known number would serve what was loaded first.
                request = self._vllm.lora.request.LoRARequest(name, next(self._numbers), str(path))
                self._llm.llm_engine.add_lora(request)
                self._held[name] = request
            # Prompts are cached by adapter, so this frees memory and changes nothing.
            self._llm.reset_prefix_cache()

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
                lora_request=[self._held[request.policy] for request in requests],
                use_tqdm=False,
            )
        return [[_continuation(sample) for sample in output.outputs] for output in outputs]


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
