"""A spec as YAML that people read and `load_spec` reads back as the same spec."""

import re
from typing import Any

import yaml

from soarctl.spec import Spec


def dump_spec(spec: Spec) -> str:
    """All keys of the spec, one per line; lists of plain values stay on the line of their key."""
    values = spec.model_dump(mode="json")
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # 1e-05 as 1e-5; repr is the shortest text that reads back as the same number.
    return dumper.represent_scalar("tag:yaml.org,2002:float", re.sub(r"e([-+])0*", r"e\1", repr(value)))


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value.strip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    plain = not any(isinstance(item, list | dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
# PyYAML writes for YAML 1.1, where 1e-5 and 0o17 are text and need no quotes. In the YAML 1.2 that specs are read as,
# they are numbers; so text that looks like one is quoted.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+$"), ["0"])
