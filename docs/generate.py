"""Writes what can be known from the code: docs/reference/*.md and specs/spec.schema.json.

python docs/generate.py
"""

import importlib
import inspect
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from soarctl import contracts, errors, ledger, plugins
from soarctl.cli.app import app
from soarctl.contracts.findings import promise
from soarctl.json_schema import spec_schema, study_schema
from soarctl.spec import Spec
from soarctl.study.spec import StudySpec

ROOT = Path(__file__).parents[1]
GENERATED = "<!-- Written by docs/generate.py from the code. Change the code, not this page. -->"


def pages() -> dict[Path, str]:
    """Every generated file, by its path in the repository."""
    return {
        Path("docs/reference/spec.md"): "\n".join(spec_page()) + "\n",
        Path("docs/reference/study.md"): "\n".join(study_page()) + "\n",
        Path("docs/reference/cli.md"): "\n".join(cli_page()) + "\n",
        Path("docs/reference/plugins.md"): "\n".join(plugins_page()) + "\n",
        Path("docs/reference/contracts.md"): "\n".join(contracts_page()) + "\n",
        Path("docs/reference/ledger.md"): "\n".join(ledger_page()) + "\n",
        Path("specs/spec.schema.json"): json.dumps(spec_schema(), indent=2) + "\n",
        Path("specs/study.schema.json"): json.dumps(study_schema(), indent=2) + "\n",
    }


def spec_page() -> Iterator[str]:
    schema = Spec.model_json_schema()
    yield from ("# Spec reference", "", GENERATED, "")
    yield from (
        "A spec is a YAML file (1.2: `1e-5` is a number, `no` is text). Unknown keys are errors. `soarctl validate`",
        "checks one, `--set teacher.lr=1e-4` changes a value, and the run directory keeps the spec with every default",
        'filled in. "Row N" is a row of the table in docs/method.md.',
        "",
        "`extends: other.yaml` takes everything from a spec beside this one and changes what this one says. Sections",
        "are merged key by key; a section that names another plug-in drops the options of the old one.",
        "",
        "## The top",
        "",
    )
    yield from table(schema["properties"], schema)
    yield from sections(schema, schema, "##")
    yield from ("", "## Plug-ins", "")
    yield from (
        "A plug-in's options stand beside its name: `domain: {plugin: letters, seed: 3}`. Third parties add plug-ins",
        "through the entry-point groups below; `soarctl plugins` lists what is installed, and",
        "`soarctl schema --plugin domain:letters` prints the options of any of them.",
    )
    for group, classes in shipped_plugins().items():
        yield from ("", f"### {group}", "")
        for name, plugin in classes.items():
            options = plugin.model_json_schema()
            yield from (f"#### {name}", "", one_line(inspect.getdoc(plugin) or ""), "")
            yield from table(options.get("properties", {}), options) if options.get("properties") else ["No options."]
            yield from sections(options, options, "#####", f"{name}.")
            yield ""


def study_page() -> Iterator[str]:
    schema = StudySpec.model_json_schema()
    yield from ("# Study reference", "", GENERATED, "")
    yield from (
        "The spec of a study is a YAML file like that of a run, read by the same rules; [studies](../study.md) says",
        "what one is for. `soarctl validate` checks it with the spec of its runs, and `soarctl schema --study`",
        "prints its JSON Schema.",
        "",
        "## The top",
        "",
    )
    yield from table(schema["properties"], schema)
    yield from sections(schema, schema, "##")


def shipped_plugins() -> dict[str, dict[str, Any]]:
    """The classes of the plug-ins that come with soarctl, by group and name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, dict[str, Any]] = {}
    for group, names in project["entry-points"].items():
        found[group] = {}
        for name, target in names.items():
            module, _, attribute = target.partition(":")
            found[group][name] = getattr(importlib.import_module(module), attribute)
    return found


def table(properties: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| key | value | default | |", "| --- | --- | --- | --- |")
    for name, field in properties.items():
        section = section_of(field, schema)
        if "default" not in field:
            default = "required"
        elif section is None or field.get("type") == "array":
            default = code(field["default"])
        else:
            default = "as below" if section.get("properties") else "a plug-in"
        described = one_line(field.get("description") or (section or {}).get("description", ""))
        yield f"| `{name}` | {cell(kind(field, schema))} | {default} | {cell(described)} |"


def sections(model: Mapping[str, Any], schema: Mapping[str, Any], heading: str, under: str = "") -> Iterator[str]:
    """The tables of all sections in a section, and of those in them."""
    for name, field in model.get("properties", {}).items():
        section = section_of(field, schema)
        # A section that names a plug-in has the options of that plug-in, which stand elsewhere.
        if section and section.get("properties"):
            yield from ("", f"{heading} {under}{name}", "", one_line(section.get("description", "")), "")
            yield from table(section["properties"], schema)
            yield from sections(section, schema, heading, f"{under}{name}.")


def section_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a field holds, or that is an item of it."""
    for option in (field, *field.get("anyOf", []), field.get("items", {})):
        if "$ref" in option:
            found = schema["$defs"][option["$ref"].rpartition("/")[2]]
            return found if "enum" not in found else None
    return None


def kind(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in field:
        return " or ".join(kind(option, schema) for option in field["anyOf"])
    if "$ref" in field:
        named = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return kind(named, schema) if "enum" in named else "section"
    if "enum" in field:
        return " or ".join(code(value) for value in field["enum"])
    if "const" in field:
        return code(field["const"])
    match field.get("type"):
        case "array" if "prefixItems" in field:
            kinds = [kind(item, schema) for item in field["prefixItems"]]
            return f"list of {len(kinds)}: {kinds[0] if len(set(kinds)) == 1 else ', '.join(kinds)}"
        case "array":
            return f"list of {kind(field.get('items', {}), schema)}"
        case "object":
            return "keys and values"
        case type_:
            words = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
            return f"{words.get(str(type_), str(type_ or 'anything'))} {' and '.join(bounds(field))}".strip()


def bounds(field: Mapping[str, Any]) -> Iterator[str]:
    for key, symbol in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<")):
        if key in field:
            yield f"{symbol} {field[key]:g}"


def cli_page() -> Iterator[str]:
    yield from ("# Command reference", "", GENERATED, "")
    yield from ("`soarctl COMMAND --help` says the same. `soarctl --version` prints the version.", "")
    commands: Mapping[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009  # typed as a command
    for name, command in commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = [f"soarctl {name}", *(["[OPTIONS]"] if options else []), *(placeholder(p) for p in arguments)]
        yield from (f"## {name}", "", one_line(command.help or ""), "", "```", " ".join(usage), "```", "")
        if arguments or options:
            yield from ("| | |", "| --- | --- |")
            yield from (f"| `{placeholder(p)}` | {cell(p.help or '')} |" for p in arguments)
            yield from (f"| `{spelling(p)}` | {cell(p.help or '')} |" for p in options)
            yield ""
        if command.epilog:
            yield from (f"{command.epilog.replace('Example: ', 'Example: `', 1)}`", "")
    yield from ("## Exit codes", "", "| code | |", "| --- | --- |")
    yield from (f"| {number} | {cell(said)} |" for number, said in errors.EXIT_CODES.items())
    yield ""
    yield from ("## Errors", "", "| class | exit code | |", "| --- | --- | --- |")
    for error in error_classes():
        first = (inspect.getdoc(error) or "").partition("\n\n")[0]
        yield f"| `{error.__name__}` | {error.exit_code} | {cell(one_line(first))} |"


def error_classes() -> list[type[errors.SoarError]]:
    """Every error that soarctl or a plug-in that comes with it shows to users."""
    shipped_plugins()  # imports them, and with them their errors
    found, waiting = list[type[errors.SoarError]](), [errors.SoarError]
    while waiting:
        error = waiting.pop(0)
        found += [error] if error.__module__ == errors.__name__ or not error.__module__.startswith("soarctl.") else []
        waiting += error.__subclasses__()
    return found


def plugins_page() -> Iterator[str]:
    yield from ("# Entry points", "", GENERATED, "")
    yield from (
        "A plug-in is a class that a package names in one of these groups. `soarctl plugins` lists what is installed",
        "and imports none of it; a spec names one, and that one is imported. Two packages with one name are an error.",
    )
    shipped = shipped_plugins()
    for kind, group in plugins.GROUPS.items():
        first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
        yield from ("", f"## {group}", "", f"Subclasses of `soarctl.api.{kind.__name__}`. {one_line(first)}", "")
        yield from ("| name | class | |", "| --- | --- | --- |")
        for name, plugin in shipped.get(group, {}).items():
            said = (inspect.getdoc(plugin) or "").partition("\n\n")[0]
            yield f"| `{name}` | `{plugin.__module__}:{plugin.__name__}` | {cell(one_line(said))} |"
        yield from ("", "| method | |", "| --- | --- |")
        for name, method in vars(kind).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                said = (inspect.getdoc(method) or "").partition("\n\n")[0]
                must = " (required)" if name in kind.__abstractmethods__ else ""
                yield f"| `{name}`{must} | {cell(one_line(said))} |"


def contracts_page() -> Iterator[str]:
    yield from ("# Contract checks", "", GENERATED, "")
    yield from (
        "What `soarctl.testing` holds a plug-in to. A broken promise is a `ContractError`, an assertion whose message",
        "has the sentence below and what was found against it. All checks run; one report names all that is broken.",
    )
    for call, checks in (
        (contracts.check_domain, contracts.domain.CHECKS),
        (contracts.check_reward, contracts.reward.CHECKS),
        (contracts.check_trainer, contracts.trainer.CHECKS),
    ):
        signature = str(inspect.signature(call)).replace("'", "")
        for module in ("soarctl.api.", "collections.abc.", "soarctl.contracts.domain."):
            signature = signature.replace(module, "")
        yield from ("", f"## {call.__name__}", "", "```python", f"{call.__name__}{signature}", "```", "")
        arguments = inspect.getdoc(call) or ""
        for line in arguments.partition("Args:\n")[2].partition("\n\nRaises:")[0].splitlines():
            yield f"- `{line.strip().partition(':')[0]}`:{line.strip().partition(':')[2]}"
        yield from ("", "| check | promise |", "| --- | --- |")
        yield from (f"| `{check.__name__}` | {cell(promise(check))} |" for check in checks)


def ledger_page() -> Iterator[str]:
    yield from ("# Ledger schema", "", GENERATED, "")
    yield from (
        f"`{ledger.FILE}` is a SQLite database, schema version {ledger.SCHEMA_VERSION} (`PRAGMA user_version`). Outer",
        "steps count from 1; datasets, repeats and positions from 0. [How to ask it](../howto/sql.md).",
    )
    with TemporaryDirectory() as directory, ledger.Ledger.create(Path(directory), {}) as made:
        for name, sql in made.rows("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            said = sql.partition("\n")[0].partition("--")[2].strip()
            yield from ("", f"## {name}", "", *([f"{said[0].upper()}{said[1:]}.", ""] if said else []))
            yield from ("| column | type | |", "| --- | --- | --- |")
            for _, column, kind, needed, _, key in made.rows(f"PRAGMA table_info({name})"):
                notes = [*(["key"] if key else []), *([] if needed or key else ["may be NULL"])]
                yield f"| `{column}` | {kind} | {', '.join(notes)} |"
            remarks = [line.partition("--")[2].strip() for line in sql.splitlines()[1:] if "--" in line]
            yield from (f"\n{cell(remark)}." for remark in remarks)


def placeholder(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def spelling(option: Any) -> str:
    names = " / ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def code(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:  # a cell of a table is one line
        return f"a text of {len(value.splitlines())} lines"
    text = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{text.replace('e-0', 'e-') if isinstance(value, float) else text}`"


def one_line(text: str) -> str:
    return " ".join(text.split())


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(paths: Sequence[tuple[Path, str]]) -> None:
    for path, text in paths:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
        print(path)


if __name__ == "__main__":
    main(list(pages().items()))
