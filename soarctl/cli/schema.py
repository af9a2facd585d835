"""`soarctl schema`: the JSON Schema that editors complete specs from."""

import json


def schema(plugin: str | None, *, study: bool) -> None:
    """Prints the schema of specs, of those of studies, or of the options of `plugin`, given as KIND:NAME.

    Raises:
        PluginError: there is no such plug-in.
        SoarError: two schemas are asked for.
    """
    from soarctl.errors import SoarError
    from soarctl.json_schema import plugin_schema, spec_schema, study_schema

    if study and plugin is not None:
        raise SoarError("--study and --plugin ask for different schemas", at=f"--plugin {plugin}", hint="give one")
    found = plugin_schema(plugin) if plugin is not None else study_schema() if study else spec_schema()
    print(json.dumps(found, indent=2))
