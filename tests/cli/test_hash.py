"""`ckptdiff hash`: fingerprints, locks, and what breaks them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from build import SweepSpec, fp8_tensors, write_scheme, write_weights
from command import run

SPEC = SweepSpec()


@pytest.fixture
def scheme(sweep: Path) -> Path:
    return sweep / SPEC.scheme(30)


def fingerprint(path: Path) -> str:
    done = run("hash", path, "--json")
    assert done.code == 0
    found = done.report["fingerprint"]
    assert isinstance(found, str)
    return found


def test_the_fingerprint_is_that_of_check(sweep: Path, scheme: Path) -> None:
    rows = run("check", sweep, "--json").report["schemes"]
    assert fingerprint(scheme) in {row["fingerprint"] for row in rows}


def test_the_fingerprint_does_not_depend_on_files(scheme: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    tensors = fp8_tensors(SPEC.selected(30))
    write_weights(other, dict(reversed(tensors.items())), shards=3)
    assert fingerprint(other) == fingerprint(scheme)


def test_text(scheme: Path) -> None:
    done = run("hash", scheme)
    first, *rest = done.text.splitlines()
    assert first.startswith("ckptdiff1:") and first.endswith(str(scheme))
    assert len(rest) == len(fp8_tensors(SPEC.selected(30)))


def test_a_lock_verifies_until_a_bit_changes(scheme: Path, tmp_path: Path) -> None:
    lock = tmp_path / "top30.lock"
    assert run("hash", scheme, "--lock", lock).code == 0
    same = run("hash", scheme, "--verify", lock)
    assert (same.code, same.text.split(":")[0]) == (0, "SAME")
    data = bytearray((scheme / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (scheme / "model.safetensors").write_bytes(data)
    done = run("hash", scheme, "--verify", lock, "--json")
    assert done.code == 1
    document = done.report
    assert document["same"] is False
    assert [d["what"] for d in document["differences"]] == ["changed"]


def test_missing_and_extra_tensors(scheme: Path, tmp_path: Path) -> None:
    lock = tmp_path / "top30.lock"
    run("hash", scheme, "--lock", lock)
    tensors = fp8_tensors(SPEC.selected(30)[1:])
    write_weights(scheme, tensors)
    document = run("hash", scheme, "--verify", lock, "--json").report
    assert {d["what"] for d in document["differences"]} == {"changed", "missing"}


def test_sha256sum_accepts_the_lock(scheme: Path, tmp_path: Path) -> None:
    """Coreutils' own tool is the oracle for the sums of the files."""
    lock = tmp_path / "top30.lock"
    assert run("hash", scheme, "--lock", lock, "--sha256").code == 0
    command = ["sha256sum", "--check", "--strict", str(lock)]
    assert subprocess.run(command, cwd=scheme, capture_output=True).returncode == 0
    os.truncate(scheme / "model.safetensors", 100)
    assert subprocess.run(command, cwd=scheme, capture_output=True).returncode == 1


def test_sha256sum_accepts_awkward_names(tmp_path: Path) -> None:
    scheme = tmp_path / "x"
    write_scheme(scheme, fp8_tensors([]))
    (scheme / "model.safetensors").rename(scheme / "a\\b\nc.safetensors")
    lock = tmp_path / "x.lock"
    assert run("hash", scheme, "--lock", lock, "--sha256").code == 0
    command = ["sha256sum", "--check", "--strict", str(lock)]
    assert subprocess.run(command, cwd=scheme, capture_output=True).returncode == 0


def test_what_cannot_be_read_is_not_locked(scheme: Path, tmp_path: Path) -> None:
    os.truncate(scheme / "model.safetensors", 2_000)
    lock = tmp_path / "top30.lock"
    done = run("hash", scheme, "--lock", lock)
    assert done.code == 2
    assert not lock.exists()
    assert run("hash", scheme).code == 2


def test_verifying_what_cannot_be_read_is_exit_2(scheme: Path, tmp_path: Path) -> None:
    lock = tmp_path / "top30.lock"
    run("hash", scheme, "--lock", lock)
    (scheme / "model.safetensors").unlink()
    (scheme / "model.safetensors").symlink_to("model.safetensors")
    done = run("hash", scheme, "--verify", lock)
    assert done.code == 2
    assert done.text.startswith("NOT COMPLETE")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nope",
        "# ckptdiff lock 1\n",
        "# ckptdiff lock 1\n# fingerprint x\n",
        "# ckptdiff lock 1\n# fingerprint ckptdiff1:0\n# tensor 00 nope\n",
        "# ckptdiff lock 1\n# fingerprint ckptdiff1:0\n# tensor 00 [1, 2, 3]\n",
        '# ckptdiff lock 1\n# fingerprint ckptdiff1:0\n# tensor 00 ["F32", "x", "k"]\n',
        "# ckptdiff lock 1\n# fingerprint ckptdiff1:0\n# tensor 00 " + "[" * 100_000 + "\n",
    ],
)
def test_a_file_that_is_no_lock(scheme: Path, tmp_path: Path, text: str) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text(text)
    done = run("hash", scheme, "--verify", lock)
    assert done.code == 2
    assert "no lock file" in done.err


@pytest.mark.parametrize("arguments", [["--lock", "a", "--verify", "b"], ["--verify", "nowhere"]])
def test_usage_errors(scheme: Path, arguments: list[str]) -> None:
    assert run("hash", scheme, *arguments).code == 2


def test_a_lock_is_not_written_into_the_checkpoint(scheme: Path) -> None:
    before = sorted(scheme.iterdir())
    assert run("hash", scheme, "--lock", scheme / "config.json").code == 2
    assert sorted(scheme.iterdir()) == before
    assert (scheme / "config.json").read_text().startswith("{")


def test_nothing_to_hash(tmp_path: Path) -> None:
    assert run("hash", tmp_path).code == 2
