"""Headers as text, sound ones among them, and what the parser says of them."""

import json

from ckptdiff.formats.safetensors import parse_header

A = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
B = '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}'


def framed(header, data_bytes=0):
    raw = header.encode() if isinstance(header, str) else header
    return len(raw).to_bytes(8, "little") + raw + bytes(data_bytes)


def parse(header, data_bytes=4):
    raw = framed(header, data_bytes)
    return parse_header(raw, len(raw), "f")


def only(header, data_bytes=4):
    """The one defect of a header."""
    parsed, defects = parse(header, data_bytes)
    assert len(defects) == 1, defects
    (defect,) = defects
    assert defect.file == "f"
    if defect.kind == "malformed":
        assert parsed is None
    else:
        assert parsed is not None
    return defect


def at(header, needle, nth=0):
    """Absolute byte offset of the nth `needle` in a header."""
    raw = header.encode() if isinstance(header, str) else header
    offset = -1
    for _ in range(nth + 1):
        offset = raw.index(needle.encode(), offset + 1)
    return 8 + offset


def entry(**fields):
    whole = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **fields}
    return json.dumps({"a": whole}, separators=(",", ":"))


SOUND = {
    "plain": (f'{{"a":{A}}}', 4),
    "two": (f'{{"a":{A},"b":{B}}}', 8),
    "out of order": (f'{{"b":{B},"a":{A}}}', 8),
    "empty": ("{}", 0),
    "metadata": (f'{{"__metadata__":{{"format":"pt"}},"a":{A}}}', 4),
    "metadata only": ('{"__metadata__":{"format":"pt"}}', 0),
    "metadata last": (f'{{"a":{A},"__metadata__":{{"format":"pt"}}}}', 4),
    "metadata null": (f'{{"__metadata__":null,"a":{A}}}', 4),
    "metadata not ASCII": (f'{{"__metadata__":{{"é":"\\u00e9\\"}}"}},"a":{A}}}', 4),
    "white space": (f' {{\n"__metadata__" : {{ }} ,\t"a" :\r {A} }} \n', 4),
    "padding": (f'{{"a":{A}}}       ', 4),
    "name not ASCII": (f'{{"日本":{A}}}', 4),
    "name escaped": (f'{{"\\u0041\\n\\ud83d\\ude00":{A}}}', 4),
    "keys escaped": (
        '{"a":{"\\u0064type":"\\u004632","shape":[1],"data_offsets":[0,4]}}',
        4,
    ),
    "name is empty": (f'{{"":{A}}}', 4),
    "name is a key": (f'{{"data_offsets":{A},"dtype":{B}}}', 8),
    "name ends like a number": (f'{{"a-0]":{A}}}', 4),
    "scalar": ('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4),
    "zero-size": ('{"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}}', 0),
    "zero-size between": (
        f'{{"a":{A},"z":{{"dtype":"F32","shape":[0],"data_offsets":[4,4]}},"b":{B}}}',
        8,
    ),
    "zero-size with huge sides": (
        '{"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}',
        0,
    ),
    "largest number": (
        '{"a":{"dtype":"F32","shape":[18446744073709551615,0],"data_offsets":[0,0]}}',
        0,
    ),
    "F4": ('{"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}', 3),
}
