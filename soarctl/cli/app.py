"""The `soarctl` command: what each command is called, what it takes, and one example that works.

A command here is a signature, a help text and one import: its body lives in `soarctl/cli/<command>.py` and is imported
when the command runs, so that `soarctl --help` pays for typer alone. To add a command, copy one and its module.
"""

import sys
from typing import Annotated

import typer

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Runs the command line. Errors that are not ours to explain keep their traceback."""
    from soarctl.errors import SoarError

    try:
        app(prog_name="soarctl")
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


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
    """Check a spec, its plug-ins and their options, and say in short what it asks for. Loads no model."""
    from soarctl.cli.validate import validate

    validate(spec, overrides or [], as_json=as_json)


@app.command(epilog="Example: soarctl schema --plugin reward:grounded")
def schema(
    plugin: Annotated[
        str | None,
        typer.Option(metavar="KIND:NAME", help="The options of one plug-in instead.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for editors and other programs."""
    from soarctl.cli.schema import schema

    schema(plugin)


@app.command(epilog="Example: soarctl plugins --check")
def plugins(
    check: Annotated[bool, typer.Option("--check", help="Import each one, to see whether it can be.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the installed domains, rewards and trainers."""
    from soarctl.cli.plugins import plugins

    plugins(check=check, as_json=as_json)
