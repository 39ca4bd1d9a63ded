"""CK101 malformed-file."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class MalformedFile(ContainerRule):
    """A header, index, config or manifest cannot be understood.

    The file is there and can be opened, but what it holds contradicts its own format: a
    safetensors header that is not JSON, a length beyond the file, a tensor whose shape and
    dtype do not fill its byte range, a config that is a list, a fifo under a shard's name.
    The location gives the byte offset where reading stopped.

    What to do: fetch or export the file again. A download that was cut off, a text page
    saved under a binary's name and a file opened for writing by two jobs are the usual
    causes. Tensors behind the file are unknown and are not reported as missing.
    """

    code = "CK101"
    name = "malformed-file"
    severity = "error"
    since = "0.1"
    kind = "malformed"
