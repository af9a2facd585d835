"""A process that works for the first one: it loads the same model, does jobs, and ends when it is told to or left."""

import os
import queue
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from soarctl.crew import FAILURES, Workplace, said
from soarctl.errors import SoarError
from soarctl.processes.channel import Channel, Gone, join
from soarctl.processes.ranks import Rank
from soarctl.processes.watchdog import deadline
from soarctl.processes.wire import Done, Event, Hello, Mistake, Ready, Stop, Task, Trouble
from soarctl.spec_reader import LoadedSpec

_LAST_SECONDS = 10.0
"""For graders and the like to end, once nobody needs this process any more."""


def serve(loaded: LoadedSpec, directory: Path, rank: Rank, patience: float) -> None:
    """Does jobs for the run in `directory` until its first process says stop, or is gone.

    Args:
        patience: seconds after which a job that tells nothing ends this process.

    Raises:
        RunError: the first process was not found.
    """
    # Ctrl-C reaches all processes of a terminal; what it means is the first one's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    parent = os.getppid()
    channel = join(directory, lambda: os.getppid() == parent)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    channel.send(Hello(rank.number, os.getpid(), socket.gethostname(), loaded.hash))
    threading.Thread(target=_listen, args=(channel, tasks), name="listen", daemon=True).start()

    def tell(event: str, /, **facts: Any) -> None:
        channel.send(Event(event, facts))

    try:
        with deadline(tell, patience):
            engine = loaded.trainer.load(loaded.spec.model, loaded.spec.seed)
            channel.send(Ready(dict(engine.facts)))
        while True:
            task = tasks.get()
            with deadline(tell, patience) as heard:
                channel.send(_outcome(task, Workplace(loaded.spec, loaded.domain, engine, heard)))
    except Gone:
        sys.exit(0)
    except SoarError as error:
        channel.send(Mistake(error.message, error.at, error.hint))
        raise


def _outcome(task: Task, place: Workplace) -> Done | Trouble | Mistake:
    try:
        return Done(task.job.run(place, last=task.last))
    except Gone:
        raise
    except FAILURES as error:
        return Trouble(said(error))
    except SoarError as error:
        return Mistake(error.message, error.at, error.hint)
    except Exception as error:  # a mistake of ours or of a plug-in, which the first process is to show
        return Mistake(said(error), None, traceback.format_exc())


def _listen(channel: Channel, tasks: "queue.SimpleQueue[Task]") -> None:
    """Takes in what the first process says, also while a job is done."""
    while True:
        try:
            message = channel.receive()
        except Gone:
            message = Stop()
        if isinstance(message, Task):
            tasks.put(message)
        else:
            # The main thread ends by the signal, and takes along what it started; if it cannot, it is left behind.
            threading.Timer(_LAST_SECONDS, os._exit, (0,)).start()
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
