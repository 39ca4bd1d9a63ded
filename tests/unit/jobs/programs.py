"""Programs for tests of child processes: each does one thing that a child may do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from ckptdiff.errors import CapabilityError
from ckptdiff.events import Advanced, Finished, Started
from ckptdiff.runtime.child import Channel, serve


def echo(channel: Channel) -> None:
    """Sends its requests back, until one says that it is the last."""
    channel.sink(Started("echo", 2, "files"))
    while True:
        message = channel.receive()
        channel.send("echo", message=message, directory=str(Path.cwd()))
        channel.sink(Advanced("echo", 1))
        if message.get("last"):
            break
    channel.sink(Finished("echo"))


def refuse(channel: Channel) -> None:
    raise CapabilityError("there is no GPU", "Buy one.")


def stumble(channel: Channel) -> None:
    sys.stderr.write("words of the child\n")
    raise ValueError("a value")


def vanish(channel: Channel) -> None:
    sys.stdout.write("last words\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def leave(channel: Channel) -> None:
    os._exit(0)


def linger(channel: Channel) -> None:
    """Starts a child of its own, says who both are, and does not hear SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    channel.send("pids", own=os.getpid(), child=child.pid)
    threading.Event().wait()


if __name__ == "__main__":
    request = {each.__name__: each for each in (echo, refuse, stumble, vanish, leave, linger)}
    serve(request[os.environ["CKPTDIFF_TEST_PROGRAM"]])
