import json

import pytest
import safetensors

from ckptdiff.formats.dtypes import BITS, SizeError, nbytes


@pytest.mark.parametrize("dtype", BITS)
def test_reference_library_agrees_on_the_size_of_every_dtype(dtype):
    size = nbytes(dtype, [8])
    header = {"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}
    raw = json.dumps(header).encode()
    parsed = safetensors.deserialize(len(raw).to_bytes(8, "little") + raw + bytes(size))
    assert parsed[0][1]["dtype"] == dtype


def test_reference_library_has_no_other_dtype():
    raw = b'{"a":{"dtype":"?","shape":[],"data_offsets":[0,0]}}'
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.deserialize(len(raw).to_bytes(8, "little") + raw)
    expected = str(caught.value).partition("expected one of")[2]
    assert {name for name in expected.split("`") if name in BITS} == set(BITS)
    assert expected.count("`") == 2 * len(BITS)


def test_sub_byte_dtypes_come_out_in_whole_bytes():
    assert nbytes("F4", [3, 2]) == 3
    assert nbytes("F6_E2M3", [4]) == 3
    with pytest.raises(SizeError, match="whole bytes"):
        nbytes("F4", [3])


def test_a_scalar_has_one_element_and_an_empty_tensor_none():
    assert nbytes("F32", []) == 4
    assert nbytes("F32", [5, 0]) == 0


@pytest.mark.parametrize(
    "shape", [[1 << 32, 1 << 32], [1 << 61], [1 << 40, 1 << 40, 0], [0, 1 << 64]]
)
def test_sizes_that_do_not_fit_64_bits_are_refused(shape):
    with pytest.raises(SizeError, match="64 bits"):
        nbytes("F32", shape)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(SizeError, match="unknown dtype"):
        nbytes("F128", [1])
