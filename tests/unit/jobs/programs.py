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
        modules = os.environ["HF_MODULES_CACHE"]
        channel.send("echo", message=message, directory=str(Path.cwd()), modules=modules)
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
    sys.stdout.write("0 %\r50 %\r100 %\nlast words\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def leave(channel: Channel) -> None:
    os._exit(0)


def brood(channel: Channel) -> None:
    """Is busy in one stage inside another, and says nothing until it is asked to go on."""
    channel.sink(Started("search", None, "modules"))
    channel.sink(Started("score", 2, "batches"))
    channel.receive()
    channel.sink(Finished("score"))
    channel.receive()
    channel.sink(Finished("search"))


def dally(channel: Channel) -> None:
    """Has said all it has to say, and does not end."""
    threading.Thread(target=threading.Event().wait).start()


def linger(channel: Channel) -> None:
    """Starts a child of its own, says who both are, and does not hear SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    channel.send("pids", own=os.getpid(), child=child.pid)
    threading.Event().wait()


if __name__ == "__main__":
    programs = (echo, refuse, stumble, vanish, leave, brood, dally, linger)
    request = {each.__name__: each for each in programs}
    serve(request[os.environ["CKPTDIFF_TEST_PROGRAM"]])
