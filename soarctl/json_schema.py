"""JSON Schemas of specs and of the options of plug-ins."""

from typing import Any

from soarctl import plugins
from soarctl.errors import PluginError
from soarctl.spec import PluginSection, Spec


def spec_schema() -> dict[str, Any]:
    """The schema of a spec file, in JSON Schema draft 2020-12."""
    schema = Spec.model_json_schema()
    required = schema.pop("required")
    # A file that extends another may leave out anything, so only the name of what is missing at the top is asked for
    # by the schema; `soarctl validate` sees the merged spec and knows the rest.
    for section in schema["$defs"].values():
        section.pop("required", None)
    schema["properties"] = {
        "extends": {"type": "string", "description": "A spec beside this one, which this one changes."},
        **schema["properties"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "if": {"required": ["extends"]},
        "else": {"required": required},
    }


def study_schema() -> dict[str, Any]:
    """The schema of a study's spec file, in JSON Schema draft 2020-12."""
    from soarctl.study.spec import StudySpec

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **StudySpec.model_json_schema()}


def plugin_schema(plugin: str) -> dict[str, Any]:
    """The schema of the options of a plug-in.

    Args:
        plugin: `KIND:NAME`, for example `domain:letters`.

    Raises:
        PluginError: there is no such plug-in.
    """
    kind, colon, name = plugin.partition(":")
    kinds = {plugins.section(each): each for each in plugins.GROUPS}
    if not colon or kind not in kinds:
        raise PluginError(
            f"expected KIND:NAME, found {plugin}", at="--plugin", hint=f"KIND is one of {', '.join(kinds)}"
        )
    found = plugins.load_class(kinds[kind], name)
    schema = found.model_json_schema()
    for field, inner in plugins.inner_kinds(found).items():
        schema["$defs"].pop(inner.__name__)
        schema["properties"][field] = {
            "description": schema["properties"][field]["description"],
            "anyOf": [{"type": "string"}, PluginSection.model_json_schema()],
        }
    return schema
