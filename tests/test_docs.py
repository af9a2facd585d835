"""What docs/generate.py writes is what the code says now."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from soarctl import errors
from soarctl.spec import Spec
from soarctl.study.spec import StudySpec

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_generated_file_is_stale(generate: ModuleType) -> None:
    stale = [str(path) for path, text in generate.pages().items() if (ROOT / path).read_text() != text]
    assert stale == [], "run: python docs/generate.py"


def test_the_reference_misses_no_key_of_a_spec_a_study_or_a_plug_in(generate: ModuleType) -> None:
    pages = "".join((ROOT / "docs/reference" / name).read_text() for name in ("spec.md", "study.md"))
    models = [Spec, StudySpec, *(p for classes in generate.shipped_plugins().values() for p in classes.values())]
    schemas = [model.model_json_schema() for model in models]
    sections = [section for schema in schemas for section in (schema, *schema.get("$defs", {}).values())]
    tables = {tuple(section["properties"]) for section in sections if section.get("properties")}
    known = re.findall(r"\| --- \| --- \| --- \| --- \|\n((?:\| `.*\n)+)", pages)
    assert tables - {tuple(re.findall(r"^\| `([^`]+)`", table, re.M)) for table in known} == set()


def test_every_key_of_a_spec_says_what_it_is(generate: ModuleType) -> None:
    schema = Spec.model_json_schema()
    sections = [section for section in schema["$defs"].values() if "properties" in section]
    mute = [
        f"{section['title']}.{key}"
        for section in sections
        for key, field in section["properties"].items()
        if not field.get("description")
    ]
    assert mute == []


def test_every_option_of_our_plug_ins_says_what_it_is(generate: ModuleType) -> None:
    mute = [
        f"{name}.{key}"
        for classes in generate.shipped_plugins().values()
        for name, plugin in classes.items()
        for key, field in plugin.model_fields.items()
        if not field.description
    ]
    assert mute == []


def test_every_error_class_is_in_the_reference_with_an_exit_code_that_is_explained(generate: ModuleType) -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    classes = generate.error_classes()
    assert {"SoarError", "SpecError", "SandboxRefused"} <= {error.__name__ for error in classes}
    assert [error for error in classes if f"| `{error.__name__}` | {error.exit_code} |" not in page] == []
    assert {error.exit_code for error in classes} <= set(errors.EXIT_CODES)


def test_the_schema_of_specs_knows_every_section_and_extends() -> None:
    schema = json.loads((ROOT / "specs/spec.schema.json").read_text())
    assert set(schema["properties"]) == {"extends", *Spec.model_fields}
    assert schema["additionalProperties"] is False
    assert schema["else"] == {"required": ["name", "model", "domain"]}


def test_the_reference_misses_no_entry_point_group_check_or_method() -> None:
    from soarctl import contracts, plugins

    page = (ROOT / "docs/reference/plugins.md").read_text()
    wanted = [*plugins.GROUPS.values(), *(f"| `{m}`" for kind in plugins.GROUPS for m in kind.__abstractmethods__)]
    assert [name for name in wanted if name not in page] == []
    checked = (ROOT / "docs/reference/contracts.md").read_text()
    modules = (contracts.domain, contracts.reward, contracts.trainer)
    assert [c.__name__ for module in modules for c in module.CHECKS if f"| `{c.__name__}` |" not in checked] == []


def test_the_reference_misses_no_table_and_no_column_of_the_ledger(tmp_path: Path) -> None:
    from soarctl.ledger import Ledger

    page = (ROOT / "docs/reference/ledger.md").read_text()
    with Ledger.create(tmp_path, {}) as ledger:
        tables = [name for (name,) in ledger.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [row[1] for table in tables for row in ledger.rows(f"PRAGMA table_info({table})")]
    assert [t for t in tables if f"## {t}\n" not in page] + [c for c in columns if f"| `{c}` |" not in page] == []


def test_the_reference_misses_no_command() -> None:
    import typer

    from soarctl.cli.app import app

    page = (ROOT / "docs/reference/cli.md").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"## {name}\n" not in page] == []
