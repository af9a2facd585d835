"""The examples as if they were installed, for their tests and for the programs that these start."""

import os
import sys
from pathlib import Path

for package in sorted(Path(__file__).parent.glob("*/soarctl_*")):
    sys.path.insert(0, str(package.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")]))
