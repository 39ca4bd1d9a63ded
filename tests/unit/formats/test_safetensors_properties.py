"""Generated headers: both tiers of the parser are held against the reference library."""

import tempfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ckptdiff.formats import safetensors as fast
from ckptdiff.formats.safetensors import parse_header
from ckptdiff.formats.safetensors_defects import explain
from tests.unit.formats.headers import SOUND, A, framed

# What the reference library accepts and we report: see the docstring of the module.
STRICTER = ("occurs twice", "unknown key", "is not an object", "is not a string")


def reference_accepts(raw):
    try:
        safetensors.deserialize(raw)
    except safetensors.SafetensorError:
        return False
    return True


def compare(raw):
    """Hold both tiers and the reference library against each other."""
    parsed, defects = parse_header(raw, len(raw), "f")
    if reference_accepts(raw):
        # Not all: of a name that occurs twice the first entry may hold anything.
        assert not defects or any(s in d.message for s in STRICTER for d in defects), defects
    else:
        assert defects
    assert all(0 <= d.offset <= len(raw) for d in defects if d.kind != "overlap")
    length = int.from_bytes(raw[:8], "little")
    if len(raw) >= 8 + length:
        body, data_bytes = raw[8 : 8 + length], len(raw) - 8 - length
        plain = fast._parse_plain(body, data_bytes)
        exact, found = explain(body, data_bytes, "f")
        if plain is not None:
            assert (exact, found) == (plain, ())
            assert list(plain.tensors) == list(exact.tensors)
    return parsed, defects


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
arrays = st.builds(
    lambda dtype, shape: np.zeros(shape, dtype),
    st.sampled_from([np.float32, np.float16, np.int8, np.uint64, np.bool_]),
    st.lists(st.integers(0, 3), max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(names.filter(lambda n: n != "__metadata__"), arrays, max_size=4),
    st.none() | st.dictionaries(names, names, max_size=3),
)
def test_whatever_the_reference_library_writes_is_sound(tensors, metadata):
    # Of no tensors with empty metadata it writes what it cannot read: {},"__metadata__":{}}
    assume(tensors or metadata != {})
    raw = safetensors.numpy.save(tensors, metadata)
    parsed, defects = compare(raw)
    assert defects == ()
    assert parsed.metadata == (metadata or {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(raw)
        with safetensors.safe_open(path, "np") as opened:
            assert set(opened.keys()) == set(parsed.tensors)
            for name, tensor in parsed.tensors.items():
                view = opened.get_slice(name)
                assert (view.get_dtype(), tuple(view.get_shape())) == (tensor.dtype, tensor.shape)


SEEDS = [
    framed(header, data_bytes)
    for header, data_bytes in [
        *SOUND.values(),
        (f'{{"a":{A},"a":{A}}}', 4),
        (f'{{"a":{A[:-1]},"x":[{{}}]}}}}', 4),
    ]
]
PIECES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b" ", b"\xff"]
PIECES += [b"\\u0041", b"\\ud800", b'"dtype"', b'"a":1', b"null", b"\0", b"99999999999999999999"]


@st.composite
def mutated(draw):
    """A sound header with a few pieces put in, cut out or written over, still framed."""
    raw = draw(st.sampled_from(SEEDS))
    length = int.from_bytes(raw[:8], "little")
    body, data = bytearray(raw[8 : 8 + length]), raw[8 + length :]
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = start + draw(st.integers(0, 3))
        body[start:end] = draw(st.sampled_from([b"", *PIECES]))
    return len(body).to_bytes(8, "little") + bytes(body) + data


@settings(max_examples=600, deadline=None)
@given(mutated())
def test_mutated_headers_are_judged_as_the_reference_library_does(raw):
    compare(raw)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=64).map(framed))
def test_no_bytes_raise(raw):
    compare(raw)


number = st.sampled_from(["0", "1", "2", "4", "8", "-0", "1.0", "01", "18446744073709551616"])
numbers = st.lists(number, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
field = st.one_of(
    st.sampled_from(["F32", "F4", "U8", "X", "F\\u00332"]).map(lambda d: f'"dtype":"{d}"'),
    numbers.map('"shape":{}'.format),
    numbers.map('"data_offsets":{}'.format),
    st.just('"x":{"dtype":[]}'),
)
body = st.tuples(
    st.sampled_from(["U8", "F32", "F4"]), st.integers(0, 3), st.integers(0, 6), st.integers(0, 6)
).map(lambda t: f'"dtype":"{t[0]}","shape":[{t[1]}],"data_offsets":[{t[2]},{t[2] + t[3]}]')
item = st.tuples(
    st.sampled_from(["a", "b", "c", "\\u0061", "dtype", "__metadata__"]),
    st.lists(field, max_size=4).map(",".join) | body,
).map(lambda t: f'"{t[0]}":{{{t[1]}}}')


@settings(max_examples=400, deadline=None)
@given(st.lists(item, max_size=4), st.integers(0, 12))
def test_headers_made_of_likely_pieces_are_judged_as_the_reference_library_does(items, data_bytes):
    compare(framed("{" + ",".join(items) + "}", data_bytes))
