"""A vLLM server on the loopback interface, with real adapters loaded while it runs."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from soarctl.api import GradedSample, Optimizer, Prompt, SamplerError, Sampling, Stream
from soarctl.plugins import load as load_plugin

pytestmark = pytest.mark.vllm

QUESTIONS = ("3 #3", "YZ | left =", "write")


@pytest.fixture(scope="module")
def url(letters: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that was started as the error messages say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = "--enable-lora --max-loras 4 --max-lora-rank 8 --dtype float32 --logprobs-mode processed_logprobs"
    small = "--generation-config vllm --enforce-eager --no-enable-chunked-prefill --max-num-batched-tokens 8192"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", letters, *options.split()]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = os.environ | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, *small.split(), "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)
                server.wait()


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(1)
    pytest.fail(f"no server after 300 seconds: {log.read_text()[-3000:]}")


def load(letters: str, url: str | None, **more: Any) -> Any:
    from soarctl.api import Trainer
    from soarctl.spec import ModelSection

    sampler = {"plugin": "decoder"} if url is None else {"plugin": "vllm", "url": url, **more}
    options = {"rank": 8, "width": 4, "device": "cpu", "sampler": sampler}
    return load_plugin(Trainer, "accelerate", options).load(ModelSection(base=letters), 0)


def asked(policies: int) -> list[Prompt]:
    return [Prompt(s, text, 4, Stream(("asked", s, text))) for s in range(policies) for text in QUESTIONS]


def test_a_fleet_learns_through_a_server(letters: str, url: str, starts: Callable[[Any], Any]) -> None:
    engine = load(letters, url)
    fleet = engine.fleet(starts(engine), Optimizer(lr=0.01))
    for _ in range(2):
        groups = fleet.sample(asked(4), Sampling(24))
        samples_S = [
            [
                GradedSample(c, 1.0 if len(c.token_ids) % 2 else -1.0)
                for group in groups[3 * s : 3 * s + 3]
                for c in group
            ]
            for s in range(4)
        ]
        stats = fleet.reinforce(samples_S)
        assert all(s.stepped for s in stats)
        assert max(s.logprob_gap for s in stats) < 1e-4


def test_greedy_completions_through_a_server_are_those_of_the_decoder(
    letters: str, url: str, starts: Callable[[Any], Any]
) -> None:
    for stop in ((), (" Y", "N N")):
        ours, theirs = (
            engine.fleet(starts(engine), Optimizer(lr=0.01)).sample(asked(4), Sampling(24, 0.0, stop=stop))
            for engine in (load(letters, None), load(letters, url))
        )
        for one, other in (pair for group in zip(ours, theirs, strict=True) for pair in zip(*group, strict=True)):
            assert replace(other, logprobs=one.logprobs) == one
            assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)


def test_a_refusal_of_the_server_is_an_error_that_says_how_to_start_it(letters: str, url: str) -> None:
    engine = load(letters, url)
    engine.fleet([engine.start()], Optimizer(lr=0.01)).sample(asked(1), Sampling(4))
    server = engine.machinery.shipped()._engine
    with pytest.raises(SamplerError, match="refuses /v1/unload_lora_adapter with status 404: ") as caught:
        server.update({}, ["never sent"])
    assert "--enable-lora --max-loras 4 --max-lora-rank 8" in str(caught.value)
