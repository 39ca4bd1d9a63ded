"""Headers that are wrong: every defect is found, named, and located in the file."""

import json

import pytest

from ckptdiff.formats.json_scanner import MAX_DEFECTS
from tests.unit.formats.headers import A, B, at, entry, only, parse

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


def test_two_negative_dimensions_whose_product_is_right():
    header = '{"a":{"dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]}}'
    assert [d.actual for d in parse(header)[1]] == ["'-2'", "'-2'"]


def test_no_header_says_that_a_tensor_is_a_part_of_another():
    """That is for us to find out."""
    header = f'{{"a":{A[:-1]},"part":{{"of":"b","expert":0,"first":0,"pitch":9}}}}}}'
    defect = only(header)
    assert (defect.tensor, defect.offset) == ("a", at(header, '"part"'))
    parsed, _ = parse(header)
    assert parsed is None or all(tensor.part is None for tensor in parsed.tensors.values())


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
