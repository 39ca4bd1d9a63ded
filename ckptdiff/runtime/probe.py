"""The child that probes: one request in, the numbers of every scheme out.

What needs torch is in `probing`, so that the import of it can be told.
"""

from __future__ import annotations

from ckptdiff.runtime.child import Channel, during, keeping_all, serve


def main(channel: Channel) -> None:
    """Carry out the request that the parent sends."""
    with during(channel.sink, "import", None, "files"), keeping_all():
        from ckptdiff.runtime import probing
    probing.carry_out(channel)


if __name__ == "__main__":
    serve(main)
