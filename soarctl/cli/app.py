"""The `soarctl` command: what each command is called, what it takes, and one example that works.

A command here is a signature, a help text and one import: its body lives in `soarctl/cli/<command>.py` and is imported
when the command runs, so that `soarctl --help` pays for typer alone. To add a command, copy one and its module.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

_NOT_READ_TO_THE_END = 141  # 128 + SIGPIPE, as of programs that do not catch it

app = typer.Typer(
    name="soarctl",
    help="Teach a model to write the practice questions that get it past problems it never solves.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the spec. May be given many times."),
]
RunDirectory = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN]", help="A run directory. Default: the newest in runs/.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Runs the command line. Errors that are not ours to explain keep their traceback."""
    from soarctl.errors import SoarError

    try:
        try:
            app(prog_name="soarctl")
        except SoarError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except SystemExit as end:
            # click catches it first and ends with 1, which would be a bug of ours
            if isinstance(end.__context__, BrokenPipeError):
                raise end.__context__ from None
            raise
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads, `head` for one, has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # or Python flushes what is left at its end, and complains
        sys.exit(_NOT_READ_TO_THE_END)


def _version(wanted: bool) -> None:
    if wanted:
        from soarctl import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: soarctl validate specs/quickstart.yaml --set outer.steps=5")
def validate(spec: SpecPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a spec, its plug-ins and their options, look for its files, and say what it asks for. Loads no model."""
    from soarctl.cli.validate import validate

    validate(spec, overrides or [], as_json=as_json)


@app.command(epilog="Example: soarctl schema --plugin reward:grounded")
def schema(
    plugin: Annotated[
        str | None,
        typer.Option(metavar="KIND:NAME", help="The options of one plug-in instead.", show_default=False),
    ] = None,
    study: Annotated[bool, typer.Option("--study", help="The spec of a study instead.")] = False,
) -> None:
    """Print the JSON Schema of specs, for editors and other programs."""
    from soarctl.cli.schema import schema

    schema(plugin, study=study)


@app.command(epilog="Example: soarctl plugins --check")
def plugins(
    check: Annotated[bool, typer.Option("--check", help="Import each one, to see whether it can be.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the installed domains, rewards, trainers and samplers."""
    from soarctl.cli.plugins import plugins

    plugins(check=check, as_json=as_json)


@app.command(epilog="Example: soarctl plan specs/math_fail128.yaml --price 2.5")
def plan(
    spec: SpecPath,
    overrides: Overrides = None,
    rates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What bench measured. Default: what it kept on this machine.", show_default=False
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="PER_HOUR", help="Of a device, per hour.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count completions, tokens, memory, hours and the price of a run before anything runs."""
    from soarctl.cli.plan import plan

    plan(spec, overrides or [], rates, price, as_json=as_json)


@app.command(epilog="Example: soarctl bench specs/quickstart.yaml")
def bench(
    spec: Annotated[str, typer.Argument(metavar="[SPEC]", help="A YAML file.")] = "specs/quickstart.yaml",
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: where plan and run look for it.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A config.json: measure random weights in its shape, where the model is not here.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="About how long to measure.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine samples and trains with a spec, for plan."""
    from soarctl.cli.bench import bench

    bench(spec, overrides or [], out, config, seconds=seconds, as_json=as_json)


@app.command(epilog="Example: soarctl show runs/quickstart --json")
def show(run: RunDirectory = None, as_json: AsJson = False) -> None:
    """Show how a run went: a line per outer step, and what was measured at its end."""
    from soarctl.cli.show import show

    show(run, as_json=as_json)


@app.command(epilog="Example: soarctl promote --inspect runs/quickstart --stage 1")
def promote(
    run: RunDirectory = None,
    inspect: Annotated[bool, typer.Option("--inspect", help="Show why, whom and what with.")] = False,
    export_student: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a promoted student as a PEFT adapter.", show_default=False),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(min=1, help="Which promotion. Default: all to look at, the last to export.", show_default=False),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Export a full model instead of an adapter.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at the promotions of a run, or take a promoted student out of it."""
    from soarctl.cli.promote import promote

    promote(run, inspect=inspect, out=export_student, stage=stage, merge=merge, as_json=as_json)


@app.command(epilog="Example: soarctl export-pq runs/quickstart --out pq/questions.jsonl --dedup")
def export_pq(
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Ends in .jsonl or .parquet; README.md goes beside it.", show_default=False),
    ],
    run: RunDirectory = None,
    dedup: Annotated[bool, typer.Option("--dedup", help="Keep one of several equal questions.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export the promotion questions as a dataset, each with where it came from."""
    from soarctl.cli.export_pq import export_pq

    export_pq(run, out, dedup=dedup, force=force, as_json=as_json)


@app.command(epilog="Example: soarctl analyze runs/quickstart")
def analyze(
    run: RunDirectory = None,
    limit: Annotated[
        int, typer.Option("--judge", min=1, metavar="N", help="Questions that a judge is asked about at most.")
    ] = 128,
    embeddings: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Vendi score by this sentence-transformers model.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at the quality of a run's questions: rejected, right, varied, and what they share with hard problems."""
    from soarctl.cli.analyze import analyze

    analyze(run, limit=limit, embeddings=embeddings, as_json=as_json)


@app.command(epilog="Example: soarctl watch runs/quickstart")
def watch(
    run: RunDirectory = None,
    once: Annotated[bool, typer.Option("--once", help="Print what there is, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often to look.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as lines of JSON, as run does.")] = False,
) -> None:
    """Follow a run that another process does, with alarms. Reads only; Ctrl-C ends the watching, not the run."""
    from soarctl.cli.watch import watch

    watch(run, once=once, every=every, as_json=as_json)


@app.command(epilog="Example: soarctl compare runs/seed0 runs/seed1")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Set runs beside each other: where their specs differ, and what came of each."""
    from soarctl.cli.compare import compare

    compare(runs, as_json=as_json)


@app.command(epilog="Example: soarctl report runs/quickstart --out report.html")
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Runs and studies. Default: the newest run.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="By default report.html in the first run.", show_default=False),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="PER_HOUR", help="Of the machine, per hour: the report says the cost.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about runs and studies that opens anywhere, without a network."""
    from soarctl.cli.report import report

    report(runs or [], out, price, as_json=as_json)


@app.command(epilog="Example: soarctl doctor specs/code_fail128.yaml")
def doctor(
    spec: Annotated[
        str | None,
        typer.Argument(metavar="[SPEC]", help="Ask its domain. Default: every domain installed.", show_default=False),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Import torch and every plug-in as well. Seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """See whether this machine is ready, and what to type next. Exit code 1: something is wrong."""
    from soarctl.cli.doctor import doctor

    if not doctor(spec, deep=deep, as_json=as_json):
        raise typer.Exit(1)


@app.command(epilog="Example: soarctl run specs/quickstart.yaml --set seed=1 --out runs/seed1")
def run(
    spec: SpecPath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory. By default runs/NAME.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    from_step: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --resume: go back to the end of outer step N.", show_default=False),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Share the work among N processes, one per GPU.", show_default=False),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(min=1.0, metavar="SECONDS", help="With several processes: how long one may say nothing."),
    ] = 3600.0,
    print_slurm: Annotated[
        bool, typer.Option("--print-slurm", help="Print a job script for Slurm instead, for --processes on --nodes.")
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, metavar="N", help="With --print-slurm: how many machines.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")] = False,
) -> None:
    """Run a spec: filter, outer steps, and the measurement on held-out problems."""
    if print_slurm:
        from soarctl.cli.slurm import print_job_script

        print_job_script(spec, overrides or [], out, processes=processes or 1, nodes=nodes, patience=patience)
        return
    from soarctl.cli.run import run

    run(
        spec,
        overrides or [],
        out,
        resume=resume,
        from_step=from_step,
        processes=processes,
        patience=patience,
        as_json=as_json,
    )


@app.command(epilog="Example: soarctl study specs/quickstart_study.yaml")
def study(
    spec: SpecPath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The study's directory. By default runs/NAME.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON, progress to stderr.")] = False,
) -> None:
    """Compare SOAR with hard problems alone and other teachers, over seeds. Started again, it goes on."""
    from soarctl.cli.study import study

    study(spec, overrides or [], out, as_json=as_json)


@app.command("filter", epilog="Example: soarctl filter specs/quickstart.yaml --out hard.jsonl")
def filter_(
    spec: SpecPath,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the results go, as JSON lines.")],
    from_samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Judge these completions instead of sampling: JSON lines with `question` (or `id`) and `completions`.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Find the problems that the base model never solves in k attempts. Goes on where an earlier call stopped."""
    from soarctl.cli.filter import filter_problems

    filter_problems(spec, overrides or [], out, from_samples, as_json=as_json)


@app.command(epilog="Example: soarctl grade '1/2' 0.5")
def grade(
    gold: Annotated[str | None, typer.Argument(metavar="GOLD", help="The right answer.", show_default=False)] = None,
    answer: Annotated[
        str | None,
        typer.Argument(
            metavar="ANSWER",
            help="An answer, or a text that holds one. After -- it may be negative.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="PAIRS",
            help="JSON lines with `gold`, `answer`, and `equivalent` if it is known.",
            show_default=False,
        ),
    ] = None,
    domain: Annotated[str, typer.Option(metavar="NAME", help="Whose verifier.")] = "math",
    as_json: AsJson = False,
) -> None:
    """Judge an answer and say why, or a file of them. Negative ones stand after --, as in: soarctl grade -- -3 -3.0"""
    from soarctl.cli.grade import grade

    grade(gold, answer, file=file, domain=domain, as_json=as_json)


@app.command(epilog="Example: soarctl new domain sums --out sums")
def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="domain, reward or trainer.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As specs will name it.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder. By default NAME.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a package with a plug-in of your own, which installs, passes its tests and runs as it is."""
    from soarctl.cli.new import new

    new(kind, name, out, as_json=as_json)


@app.command(epilog="Example: soarctl tiny --from texts.jsonl --out tiny-model")
def tiny(
    texts: Annotated[
        Path,
        typer.Option("--from", metavar="FILE", help="JSON lines with `prompt` and `completion`.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model goes.", show_default=False)],
    updates: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Updates. Default: 600.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a tiny model on texts of your domain, to run the whole loop on a CPU."""
    from soarctl.cli.tiny import tiny

    tiny(texts, out, updates=updates, as_json=as_json)
