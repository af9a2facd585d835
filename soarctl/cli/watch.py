"""`soarctl watch`: the live view of a run that another process does."""

import sys
import time
from pathlib import Path


def watch(directory: Path | None, *, once: bool, every: float, as_json: bool) -> None:
    """Shows a run until it ends, or Ctrl-C; by default the newest run.

    Raises:
        RunError: it cannot be read.
    """
    from soarctl.cli.run_view import JsonLines, LiveView, PlainLines
    from soarctl.runs import newest
    from soarctl.watching import Follower

    place = directory or newest()
    follower = Follower(place)
    view = JsonLines() if as_json else LiveView() if sys.stdout.isatty() and not once else PlainLines()
    try:
        with view:
            progress = None
            while True:
                ended = False
                for event, facts in follower.events():
                    view.tell(event, **facts)
                    ended = event == "finished"
                    progress = facts.get("progress")
                if ended or once:
                    break
                time.sleep(every)
        if progress == "interrupted" and not as_json:
            print(f"nobody works in {place}: `soarctl run SPEC --out {place} --resume` goes on")
    except KeyboardInterrupt:
        return  # who watches has seen enough; the run goes on
