"""`soarctl schema`: the JSON Schema that editors complete specs from."""

import json


def schema(plugin: str | None) -> None:
    """Prints the schema of specs, or of the options of `plugin`, given as KIND:NAME.

    Raises:
        PluginError: there is no such plug-in.
    """
    from soarctl.json_schema import plugin_schema, spec_schema

    print(json.dumps(spec_schema() if plugin is None else plugin_schema(plugin), indent=2))
