"""`soarctl bench`: how fast this machine is with a spec, for `soarctl plan`."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soarctl.rates import Rates
    from soarctl.spec_reader import LoadedSpec


def bench(
    path: str, overrides: Sequence[str], out: Path | None, config: Path | None, *, seconds: float, as_json: bool
) -> None:
    """Measures, keeps what was measured, and prints it.

    Raises:
        SoarError: what stands in the way.
    """
    from soarctl import rates
    from soarctl.bench import measure
    from soarctl.plan import plan
    from soarctl.spec_reader import load_spec

    loaded = load_spec(path, overrides)
    counted = plan(loaded)

    def tell(event: str, /, **facts: Any) -> None:
        if not as_json:
            print(f"measuring: {facts['part']}", flush=True)

    if config is None:
        measured = measure(loaded, counted, seconds, tell)
    else:
        with tempfile.TemporaryDirectory() as place:
            measured = measure(_made_up(loaded, config, Path(place)), counted, seconds, tell, random_weights=True)
        measured = replace(measured, settings=rates.settings_of(loaded.spec))
    place = out or rates.place(loaded.spec)
    rates.write(measured, place)
    if as_json:
        print(json.dumps({"file": str(place), **asdict(measured)}, indent=2))
    else:
        _print(measured, place)


def _made_up(loaded: "LoadedSpec", config: Path, directory: Path) -> "LoadedSpec":
    """The spec with a model of random weights."""
    from soarctl.errors import ModelError
    from soarctl.random_model import write_random_model

    try:
        values = json.loads(config.read_bytes())
        write_random_model(values, directory, tokenizer=config.parent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"is not a model's config: {error}", at=str(config), hint="give the config.json of a Llama-like model"
        ) from error
    model = loaded.spec.model.model_copy(update={"base": str(directory), "revision": None, "chat_template": False})
    return replace(loaded, spec=loaded.spec.model_copy(update={"model": model}))


def _print(rates: "Rates", place: Path) -> None:
    from soarctl.cli.table import print_table

    print()
    weights = ", random weights and decreed lengths" if rates.random_weights else ""
    print(f"{rates.device} of {rates.machine}, {rates.sequences:,} sequences side by side in practice{weights}")
    print_table(
        ["PURPOSE", "COMPLETIONS", "TOKENS EACH", "SAMPLED TOKENS/S", "TRAINED TOKENS/S", "MS EACH"],
        [
            [
                what,
                f"{each.completions:,}",
                f"{each.tokens_each:.1f}",
                f"{each.tokens / each.sampling:,.0f}",
                f"{each.tokens / each.training:,.0f}" if each.training else "",
                f"{1000 * each.seconds_each:.3g}",
            ]
            for what, each in rates.spent.items()
        ],
    )
    if rates.pass_rate is not None:
        print(f"{100 * rates.pass_rate:.0f} % of teacher completions pass the format filter")
    if rates.hard_rate is not None:
        print(f"{100 * rates.hard_rate:.0f} % of candidates were never solved, in {rates.filter_attempts:.0f} attempts")
    print(f"the model was loaded in {rates.startup:.1f} s")
    print(f"`soarctl plan` with this spec reads {place}")
