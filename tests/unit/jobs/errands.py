"""What the workers of the tests do: functions that a process can import."""

from __future__ import annotations

import os
import signal

from ckptdiff.jobs.workers import Observer, Work


def prepare(factor: int) -> Work[int, tuple[int, int]]:
    def multiply(task: int, watch: Observer) -> tuple[int, int]:
        watch.advance(task)
        return factor * task, os.getpid()

    return multiply


def failing() -> Work[int, int]:
    def divide(task: int, watch: Observer) -> int:
        return 1 // task

    return divide


def vanishing() -> Work[int, int]:
    def die(task: int, watch: Observer) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return task

    return die


def endless() -> Work[int, int]:
    """Says who it is, in bytes that it has read, and then reads for ever."""

    def read(task: int, watch: Observer) -> int:
        watch.advance((1 << 32) + os.getpid())
        while True:
            watch.advance(1 << 24)

    return read


def unprepared() -> Work[int, int]:
    raise ValueError("nothing can be done here")
