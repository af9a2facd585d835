"""A vLLM server elsewhere, through the OpenAI interface and the endpoints that load adapters while it runs."""

import json
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from soarctl.api import AdapterShape, Continuation, InferenceEngine, Policy, Request, SamplerError, Sampling, Served
from soarctl.trainers.shipped_adapters import AdapterFolder
from soarctl.trainers.vllm_engine import sampling_options
from soarctl.trainers.vllm_sampler import VllmSampler, largest_rank

START = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-loras {width} "
    "--max-lora-rank {rank} --dtype {dtype} --logprobs-mode processed_logprobs --generation-config vllm"
)


class VllmServer(InferenceEngine):
    """A server that sees the folder of adapters under the same name as this machine does."""

    def __init__(self, options: VllmSampler, url: str, model: Served, shape: AdapterShape) -> None:
        self._options, self._url, self._model = options, url.rstrip("/").removesuffix("/v1"), model
        self._adapters = AdapterFolder(options.adapters, model, shape)
        # Runs that share a server, and one that starts again, must not find each other's adapters.
        self._run = secrets.token_hex(4)
        self._start = START.format(width=model.width, rank=largest_rank(shape.rank), dtype=model.dtype)
        self._ask("/v1/models", None)

    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        # The requests of this run have all been answered here, so none of them meets an adapter that is half loaded.
        for name in removed:
            self._ask("/v1/unload_lora_adapter", {"lora_name": self._known(name)})
            self._adapters.forget(name)
        for name, policy in added.items():
            path = self._adapters.write(name, policy)
            self._ask("/v1/load_lora_adapter", {"lora_name": self._known(name), "lora_path": str(path)})

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Continuation]]:
        with ThreadPoolExecutor(min(len(requests), self._options.max_sequences, 256)) as pool:
            return list(pool.map(self._complete, requests, repeat(sampling)))

    def _complete(self, request: Request, sampling: Sampling) -> list[Continuation]:
        asked = {
            "model": self._known(request.policy),
            "prompt": list(request.prompt_ids),
            "return_token_ids": True,
            **sampling_options(request, sampling, self._model),
        }
        answer = self._ask("/v1/completions", asked)
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            return [
                Continuation(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"]))
                for choice in choices
            ]
        except (KeyError, TypeError) as error:
            raise SamplerError(
                f"the server's answer lacks {error}", at=self._url, hint=f"it must be vLLM 0.22 or newer; {self._start}"
            ) from error

    def _known(self, name: str) -> str:
        return f"soarctl-{self._run}-{name}"

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = HttpRequest(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self._options.timeout) as response:
                text = response.read()
        except HTTPError as error:
            said = error.read(500).decode(errors="replace")
            raise SamplerError(
                f"the server refuses {path} with status {error.code}: {said}", at=self._url, hint=self._start
            ) from error
        except (URLError, OSError) as error:
            raise SamplerError(f"the server cannot be reached: {error}", at=self._url, hint=self._start) from error
        # Adapters are acknowledged in plain text.
        return json.loads(text) if path in ("/v1/completions", "/v1/models") else text
