"""Fails unless a quickstart run shows what the README says it shows."""

import json
import subprocess
import sys
from pathlib import Path

shown = subprocess.run(
    [str(Path(sys.executable).with_name("soarctl")), "show", sys.argv[1], "--json"],
    check=True,
    capture_output=True,
    text=True,
)
arms = {arm["name"]: arm["pass_at"] for arm in json.loads(shown.stdout)["held_out"]}
assert "promoted" in arms, "no student was promoted"
base, promoted = arms["base"], arms["promoted"]
assert promoted["1"]["value"] >= 0.15, promoted["1"]
assert promoted["8"]["value"] >= 0.40, promoted["8"]
assert promoted["1"]["value"] >= 10 * base["1"]["value"], (base["1"], promoted["1"])
print(f"quickstart: pass@1 {base['1']['value']:.4f} -> {promoted['1']['value']:.4f}")
