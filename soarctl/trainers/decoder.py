"""The sampler that needs nothing: the trainer's own model, in its own process."""

from soarctl.api import InferenceEngine, Sampler, Served


class DecoderSampler(Sampler):
    """Samples with the trainer's own decoder, from the very weights that it trains: a sample depends on its stream
    and, but for rounding, on nothing else."""

    @property
    def takes_all_weights(self) -> bool:
        return True

    @property
    def repeats(self) -> bool:
        return True

    def attach(self, model: Served) -> InferenceEngine | None:
        return None
