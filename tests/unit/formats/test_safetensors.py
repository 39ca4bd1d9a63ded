import gc
import json
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ckptdiff.formats import safetensors as fast
from ckptdiff.formats.safetensors import MAX_HEADER, parse_header, read_shard
from ckptdiff.formats.safetensors_defects import MAX_DEFECTS, explain
from ckptdiff.records.checkpoint import Tensor

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


# --- Sound headers ------------------------------------------------------------------------

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


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_header_has_no_defects_and_the_reference_accepts_it(case):
    header, data_bytes = SOUND[case]
    raw = framed(header, data_bytes)
    parsed, defects = parse_header(raw, len(raw), "f")
    assert defects == ()
    expected = json.loads(header)
    metadata = expected.pop("__metadata__", None) or {}
    assert parsed.metadata == metadata
    assert list(parsed.tensors) == list(expected)
    for name, tensor in parsed.tensors.items():
        assert tensor == Tensor(
            expected[name]["dtype"],
            tuple(expected[name]["shape"]),
            tuple(expected[name]["data_offsets"]),
        )
    assert parsed.data_start == len(raw) - data_bytes
    assert len(safetensors.deserialize(raw)) == len(parsed.tensors)


PLAIN = ["plain", "two", "out of order", "empty", "metadata", "metadata not ASCII", "white space"]


@pytest.mark.parametrize("case", [*PLAIN, "padding", "name is a key", "zero-size between"])
def test_plainly_written_headers_take_the_fast_path(case):
    header, data_bytes = SOUND[case]
    assert fast._parse_plain(header.encode(), data_bytes) is not None


# --- The frame ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(8))
def test_a_file_that_is_shorter_than_the_length_field(size):
    (defect,) = parse_header(bytes(size), size, "f")[1]
    assert (defect.kind, defect.offset) == ("truncated", size)
    assert defect.actual == f"{size} bytes"


@pytest.mark.parametrize(
    ("length", "kind"),
    [
        (0, "malformed"),
        (3, "truncated"),
        (MAX_HEADER, "truncated"),
        (MAX_HEADER + 1, "malformed"),
        (1 << 62, "malformed"),
        ((1 << 64) - 1, "malformed"),
    ],
)
def test_a_header_length_that_cannot_be(length, kind):
    raw = length.to_bytes(8, "little") + b"{}"
    parsed, (defect,) = parse_header(raw, len(raw), "f")
    assert parsed is None
    assert defect.kind == kind
    assert defect.offset == (0 if kind == "malformed" else 10)


def test_a_text_file():
    text = b"This is a text file, not a checkpoint.\n"
    (defect,) = parse_header(text, len(text), "f")[1]
    assert (defect.kind, defect.offset) == ("malformed", 0)
    assert "text file" in defect.message


def test_a_git_lfs_pointer():
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (defect,) = parse_header(text, len(text), "f")[1]
    assert "Git LFS pointer" in defect.message


# --- Not JSON, or JSON of another kind ----------------------------------------------------


def test_not_utf8():
    header = b'{"a\xff":' + A.encode() + b"}"
    defect = only(header)
    assert (defect.offset, defect.actual) == (8 + 3, "byte 0xff")


@pytest.mark.parametrize(
    ("header", "offset"),
    [
        ("hello", 8),
        ("   ", 8 + 3),
        ("\ufeff{}", 8),
        ("{", 8 + 1),
        ('{"a"', 8 + 4),
        ('{"a" 1}', 8 + 5),
        ("{a:1}", 8 + 1),
        (f'{{"a":{A},}}', 8 + 6 + len(A)),
        (f'{{"a":{A}]', 8 + 5 + len(A)),
        (f'{{"a":{A}', 8 + 5 + len(A)),
        (f'{{"a":{A}}}x', 8 + 6 + len(A)),
        (f'{{"a":{A}}}\0', 8 + 6 + len(A)),
        (f'{{"a":{A}}}\f', 8 + 6 + len(A)),
        (f'{{"日本":{A}}}x', 8 + 11 + len(A)),
        ('{"a\x01":1}', 8 + 3),
        ('{"__metadata__":{},}', 8 + 19),
    ],
)
def test_not_json_is_located(header, offset):
    defect = only(header)
    assert "not JSON" in defect.message
    assert defect.offset == offset


@pytest.mark.parametrize("number", ["01", "1.", "+1", "NaN", "Infinity", "0x1", "1e", "-"])
def test_numbers_that_json_does_not_have(number):
    header = A.replace("[1]", f"[{number}]")
    assert "not JSON" in only(f'{{"a":{header}}}').message


@pytest.mark.parametrize("header", ["[]", "null", "1", '"a"', "true", "[[{}]]"])
def test_json_that_is_not_an_object(header):
    defect = only(header)
    assert (defect.offset, defect.message) == (8, "the header is not a JSON object")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("opener", ["[", '{"a":'])
@pytest.mark.parametrize(
    "before", ["", '{"a":', '{"a":{"shape":', '{"a":{"x":', '{"__metadata__":']
)
def test_nesting_200_000_deep(opener, before):
    _, defects = parse(before + opener * 200_000)
    assert "nested" in defects[-1].message


@pytest.mark.timeout(20)
def test_nesting_in_metadata_values():
    header = '{"__metadata__":{"a":' + "[" * 200_000
    assert "nested" in only(header).message


# --- Names and keys -----------------------------------------------------------------------


def test_a_tensor_name_that_occurs_twice():
    header = f'{{"a":{A},"a":{A}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("a", at(header, '"a"', 1))
    assert "twice" in defect.message
    assert str(at(header, '"a"')) in defect.message


def test_names_are_compared_as_json_means_them():
    header = f'{{"A":{A},"\\u0041":{A}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("A", at(header, '"\\u0041"'))


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_a_key_that_occurs_twice_in_an_entry(field):
    value = json.dumps(json.loads(A)[field])
    header = f'{{"a":{A[:-1]},"{field}":{value}}}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("a", at(header, f'"{field}"', 1))


def test_a_double_key_is_seen_when_another_key_is_escaped():
    # Counting "dtype" in the bytes finds two for two tensors.
    header = (
        f'{{"a":{A[:-1]},"dtype":"F32"}},'
        '"b":{"\\u0064type":"F32","shape":[1],"data_offsets":[4,8]}}'
    )
    assert only(header, 8).tensor == "a"


def test_metadata_that_occurs_twice():
    header = f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{A}}}'
    defect = only(header)
    assert defect.offset == at(header, '"__metadata__"', 1)


def test_a_metadata_key_that_occurs_twice():
    header = f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{A}}}'
    assert only(header).offset == at(header, '"k"', 1)


@pytest.mark.parametrize("value", ["1", "[]", '"pt"', "true", '{"k":1}', '{"k":null}', '{"k":{}}'])
def test_metadata_that_is_no_map_of_strings(value):
    header = f'{{"__metadata__":{value},"a":{A}}}'
    assert "__metadata__" in only(header).message


def test_metadata_that_is_written_as_a_tensor():
    defects = parse(f'{{"__metadata__":{A}}}')[1]
    assert [d.kind for d in defects] == ["malformed", "malformed"]  # shape and data_offsets


@pytest.mark.parametrize("value", ["1", '[[[{"k":"\\\\"}]]]', "null", '"x"', "1.5e3"])
def test_an_unknown_key(value):
    header = f'{{"a":{A[:-1]},"extra":{value}}}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("a", at(header, '"extra"'))


def test_a_lone_surrogate_in_a_name_is_reported_in_printable_form():
    header = f'{{"x\\ud800":{A}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("x\\ud800", at(header, '"x'))
    defect.message.encode()


def test_a_lone_surrogate_in_metadata():
    for text in ('{"k":"\\udc00"}', '{"\\udc00":"k"}'):
        only(f'{{"__metadata__":{text},"a":{A}}}').message.encode()


# --- Values -------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_a_missing_key(field):
    fields = json.loads(A)
    del fields[field]
    header = json.dumps({"a": fields}, separators=(",", ":"))
    defect = only(header)
    assert (defect.tensor, defect.expected, defect.offset) == ("a", field, 8 + 5)


@pytest.mark.parametrize("value", ["[]", "1", "null", '["F32",[1],[0,4]]'])
def test_an_entry_that_is_no_object(value):
    defect = only(f'{{"a":{value}}}')
    assert (defect.tensor, defect.offset) == ("a", 8 + 5)


@pytest.mark.parametrize("value", ["F31", "f32", "", "float32"])
def test_an_unknown_dtype(value):
    header = entry(dtype=value)
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("a", at(header, f'"{value}"'))
    assert defect.actual == repr(value)


@pytest.mark.parametrize("value", [None, 1, {"F32": None}, ["F32"]])
def test_a_dtype_that_is_no_string(value):
    assert "dtype" in only(entry(dtype=value)).message


NOT_NATURAL = ["-1", "-0", "1.0", "1e0", "true", "null", '"1"', "[1]", "{}", "18446744073709551616"]


@pytest.mark.parametrize("number", [*NOT_NATURAL, "9" * 5_000, "-" + "9" * 5_000])
@pytest.mark.parametrize("field", ["shape", "data_offsets"])
def test_numbers_that_are_not_natural(field, number):
    old = {"shape": "[1]", "data_offsets": "[0,"}[field]
    new = {"shape": f"[{number}]", "data_offsets": f"[{number},"}[field]
    header = f'{{"a":{A.replace(old, new)}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("a", at(header, new) + 1)
    assert field in defect.message
    assert len(defect.actual) < 200


@pytest.mark.parametrize("value", [None, 4, "4", {}])
@pytest.mark.parametrize("field", ["shape", "data_offsets"])
def test_lists_that_are_no_lists(field, value):
    assert "is not a list" in only(entry(**{field: value})).message


@pytest.mark.parametrize("value", [[], [0], [0, 4, 4]])
def test_data_offsets_that_are_no_pair(value):
    assert "pair" in only(entry(data_offsets=value)).message


def test_reversed_data_offsets():
    header = entry(data_offsets=[4, 0])
    defect = only(header)
    assert "reversed" in defect.message
    assert defect.offset == at(header, "[4,0]")


@pytest.mark.parametrize("shape", [[1 << 32, 1 << 32], [1 << 61], [1 << 40, 1 << 40, 0]])
def test_a_shape_that_overflows(shape):
    header = entry(shape=shape, data_offsets=[0, 0])
    defect = only(header, 0)
    assert "64 bits" in defect.message
    assert defect.offset == at(header, f"[{shape[0]}")


def test_a_sub_byte_tensor_that_does_not_fill_its_last_byte():
    assert "whole bytes" in only(entry(dtype="F4", shape=[1], data_offsets=[0, 1]), 1).message


def test_a_size_that_contradicts_shape_and_dtype():
    header = entry(shape=[2])
    defect = only(header)
    assert (defect.expected, defect.actual) == ("8 bytes for F32 [2]", "4 bytes")
    assert defect.offset == at(header, "[0,4]")


def test_several_defects_are_all_reported_in_file_order():
    header = f'{{"a":{A.replace("F32", "X")},"b":{B.replace("[1]", "[-1]")},"b":1,"c":[]}}'
    defects = parse(header)[1]
    assert [d.tensor for d in defects] == ["a", "b", "b", "b", "c"]
    assert [d.offset for d in defects] == sorted(d.offset for d in defects)


def test_offsets_count_bytes_not_characters():
    header = f'{{"日本":{A},"é":{B.replace("F32", "X")}}}'
    assert only(header, 8).offset == at(header, '"X"')


@pytest.mark.timeout(20)
def test_the_number_of_defects_is_limited():
    header = "{" + ",".join(f'"{n}":0' for n in range(50_000)) + "}"
    parsed, defects = parse(header)
    assert parsed is None
    assert len(defects) == MAX_DEFECTS + 1
    assert "more than" in defects[-1].message


@pytest.mark.timeout(60)
def test_the_number_of_values_that_are_passed_over_is_limited():
    ones = "1," * 2_000_000
    assert "belong to no tensor" in parse(f'{{"a":{{"x":[{ones}1]}}}}')[1][-1].message
    assert "not a non-negative" in parse(f'{{"a":{{"shape":[-1,{ones}1]}}}}')[1][0].message


# --- Placement ----------------------------------------------------------------------------


def test_truncated_data_counts_the_tensors_and_names_the_first():
    header = f'{{"a":{A},"b":{B}}}'
    defect = only(header, 6)
    assert (defect.kind, defect.tensor) == ("truncated", "b")
    assert "1 of 2 tensors" in defect.message
    assert defect.offset == 8 + len(header) + 6
    assert defect.expected == f"a file of {8 + len(header) + 8} bytes"


def test_overlapping_tensors():
    header = f'{{"a":{A},"b":{B.replace("[4,8]", "[2,6]")}}}'
    defect = only(header, 6)
    assert (defect.kind, defect.tensor) == ("overlap", "b")
    assert defect.offset == 8 + len(header) + 2
    assert "'a'" in defect.message


def test_tensors_that_share_all_their_bytes_overlap():
    assert only(f'{{"a":{A},"b":{A}}}').kind == "overlap"


def test_a_zero_size_tensor_inside_another_overlaps():
    # Harmless, but the reference library refuses the file.
    zero = '{"dtype":"F32","shape":[0],"data_offsets":[2,2]}'
    assert only(f'{{"a":{A},"z":{zero}}}').kind == "overlap"


@pytest.mark.parametrize(
    ("header", "data_bytes", "start", "tensor"),
    [
        (f'{{"b":{B}}}', 8, 0, "b"),
        (f'{{"a":{A},"b":{B.replace("[4,8]", "[6,10]")}}}', 10, 4, "b"),
        (f'{{"a":{A}}}', 9, 4, None),
        ("{}", 3, 0, None),
    ],
)
def test_bytes_that_belong_to_no_tensor(header, data_bytes, start, tensor):
    defect = only(header, data_bytes)
    assert (defect.kind, defect.tensor) == ("gap", tensor)
    assert defect.offset == 8 + len(header) + start


def test_offsets_far_out_of_range_are_truncated_data():
    far = 1 << 60
    header = entry(dtype="U8", shape=[4], data_offsets=[far, far + 4])
    kinds = {d.kind for d in parse(header)[1]}
    assert kinds == {"gap", "truncated"}


# --- Files --------------------------------------------------------------------------------


def test_a_shard_of_the_reference_library(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.int8)}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", {"format": "np"})
    shard = read_shard(tmp_path, "m.safetensors")
    assert (shard.defects, shard.unread) == ((), None)
    assert shard.header.metadata == {"format": "np"}
    assert shard.identity.size == (tmp_path / "m.safetensors").stat().st_size
    content = (tmp_path / "m.safetensors").read_bytes()
    for name, array in tensors.items():
        start, end = shard.tensors[name].data_offsets
        data_start = shard.header.data_start
        assert content[data_start + start : data_start + end] == array.tobytes()


@pytest.mark.timeout(10)
def test_things_that_are_no_files_are_malformed(tmp_path):
    os.mkfifo(tmp_path / "fifo.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    for name in ("fifo", "folder", "device"):
        shard = read_shard(tmp_path, f"{name}.safetensors")
        assert [d.kind for d in shard.defects] == ["malformed"]
        assert (shard.header, shard.unread) == (None, None)


def test_files_that_cannot_be_looked_at_are_unread(tmp_path):
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("loop.safetensors", "absent.safetensors", "n" * 300):
        shard = read_shard(tmp_path, name)
        assert shard.unread.path == name
        assert (shard.header, shard.defects) == (None, ())


def test_a_file_that_changes_while_it_is_read_is_unread(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_bytes(framed("{}"))
    read_range = fast.read_range

    def change_then_read(fd, offset, length):
        path.write_bytes(framed("{}  "))
        return read_range(fd, offset, length)

    monkeypatch.setattr(fast, "read_range", change_then_read)
    shard = read_shard(tmp_path, "m.safetensors")
    assert "changed" in shard.unread.reason


def test_a_huge_stated_length_is_not_read(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little"))
    os.truncate(path, 1 << 41)  # sparse
    (defect,) = read_shard(tmp_path, "m.safetensors").defects
    assert defect.kind == "malformed"


# --- The garbage collector ----------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        parse(f'{{"a":{A}}}')
        parse("{")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_the_garbage_collector_stays_off_until_the_last_thread_is_done():
    pause = fast._GcPause()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with pause.paused():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    with pause.paused():
        thread.start()
        assert entered.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


# --- Properties ---------------------------------------------------------------------------

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
