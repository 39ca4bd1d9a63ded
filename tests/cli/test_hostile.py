"""Checkpoints that somebody broke or forged: the right finding or exit 2, and never a clean
verdict, a traceback, a hang, or a byte that does something to a terminal.

`run` fails by itself on tracebacks, hangs and raw control characters.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import build
import pytest
from command import check, harmless, run

import ckptdiff
from ckptdiff.events import Event, Started
from ckptdiff.records.report import CheckReport

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00002.safetensors"
DEEP = b"[" * 200_000 + b"]" * 200_000
DIGITS = b"9" * 5_000


def write_one(path: Path, shards: int = 1, salt: str = "") -> Path:
    """A healthy scheme; `salt` gives it weights of its own."""
    recipes = build.recipes(1)
    quantized = [module for recipe in recipes[:2] for module in build.members(recipe)]
    tensors = build.fp8_tensors(quantized, 1)
    if salt:
        tensors["model.norm.weight"] = build.Spec("BF16", (build.HIDDEN,), f"norm {salt}")
    return build.write_scheme(
        path,
        tensors,
        manifest=build.coverage_manifest(path.name, 50, recipes),
        baseline=build.baseline_manifest(recipes),
        shards=shards,
        layers=1,
    )


def coverage_of(scheme: Path) -> Path:
    return scheme / f"layer-sensitivity/{scheme.name}_coverage_from_baseline.json"


def baseline_of(scheme: Path) -> Path:
    return scheme / f"layer-sensitivity/{build.BASELINE}_quant_manifest.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """ROOT of one healthy scheme, `one`."""
    write_one(tmp_path / "root/one")
    return tmp_path / "root"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """ROOT of one healthy scheme, `one`, in two shards with an index."""
    write_one(tmp_path / "root/one", shards=2)
    return tmp_path / "root"


def test_the_schemes_of_these_tests_are_healthy(root: Path, tmp_path: Path) -> None:
    write_one(tmp_path / "root/two", shards=2, salt="two")
    result = check(root)
    assert result.code == 0
    assert result.codes == set()
    assert result.report["verdict"]["complete"]


# Shards


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


BROKEN_SHARDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut-in-data": (lambda raw: raw[:-5], "CK102"),
    "cut-in-header": (lambda raw: raw[:100], "CK102"),
    "cut-in-length": (lambda raw: raw[:5], "CK102"),
    "empty": (lambda raw: b"", "CK102"),
    "header-of-0": (lambda raw: bytes(8) + raw[8:], "CK101"),
    "header-of-2^62": (lambda raw: struct.pack("<Q", 1 << 62) + raw[8:], "CK101"),
    "header-of-2^64-1": (lambda raw: b"\xff" * 8 + raw[8:], "CK101"),
    "not-json": (lambda raw: framed(b"{not json"), "CK101"),
    "not-utf-8": (lambda raw: framed(b'{"\xff\xfe": 1}'), "CK101"),
    "a-list": (lambda raw: framed(b"[]"), "CK101"),
    "nested": (lambda raw: framed(DEEP), "CK101"),
    "nested-in-entry": (lambda raw: framed(b'{"a":' + DEEP + b"}"), "CK101"),
    "nested-in-metadata": (lambda raw: framed(b'{"__metadata__":' + DEEP + b"}"), "CK101"),
    "digits-in-offsets": (
        lambda raw: framed(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,' + DIGITS + b"]}}", b"x"
        ),
        "CK101",
    ),
    "digits-in-shape": (
        lambda raw: framed(
            b'{"a":{"dtype":"U8","shape":[' + DIGITS + b'],"data_offsets":[0,1]}}', b"x"
        ),
        "CK101",
    ),
    "digits-in-metadata": (
        lambda raw: framed(b'{"__metadata__":{"format":' + DIGITS + b"}}"),
        "CK101",
    ),
    "text": (lambda raw: b"This model was moved to another place, sorry.\n", "CK101"),
    "lfs-pointer": (
        lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "CK101",
    ),
}


@pytest.mark.parametrize("case", BROKEN_SHARDS)
def test_broken_shard(root: Path, case: str) -> None:
    change, code = BROKEN_SHARDS[case]
    file = root / "one" / SINGLE
    file.write_bytes(change(file.read_bytes()))
    result = check(root)
    assert result.code == 1
    assert result.codes == {code}
    assert result.report["verdict"]["safe"] == []


def test_a_name_of_megabytes_is_no_reason_to_hang(root: Path) -> None:
    name = b"x" * 5_000_000
    header = b'{"' + name + b'":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}'
    (root / "one" / SINGLE).write_bytes(framed(header, b"x"))
    result = run("check", root)
    assert result.code == 1
    assert "CK101" in result.text
    assert len(result.text) < 10_000


def socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFSOCK | 0o600)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


NO_FILES = {
    "fifo": (fifo, "CK101"),
    "directory": (directory, "CK101"),
    "socket": (socket, "CK101"),
    "device": (device, "CK101"),
    "loop": (loop, None),
    "dangling": (dangling, None),
}
PLACES = (
    SINGLE,
    "config.json",
    "hf_quant_config.json",
    "layer-sensitivity/one_coverage_from_baseline.json",
    f"layer-sensitivity/{build.BASELINE}_quant_manifest.json",
)


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("place", PLACES)
def test_no_regular_file(root: Path, kind: str, place: str) -> None:
    make, code = NO_FILES[kind]
    make(root / "one" / place)
    result = check(root)
    if code is None:
        assert result.code == 2
        assert list(result.unread) == [f"one/{place}"]
        assert result.codes == set()
    else:
        assert result.code == 1
        assert result.codes == {code}
    assert not result.report["verdict"]["safe"]


def test_no_regular_file_as_index(sharded: Path) -> None:
    fifo(sharded / "one" / INDEX)
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK101"})


def test_manifest_folder_that_is_none(root: Path) -> None:
    folder = root / "one/layer-sensitivity"
    shutil.rmtree(folder)
    loop(folder)
    result = check(root)
    assert result.code == 2
    assert "one/layer-sensitivity" in result.unread


# Index


def edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_shard_missing_by_index(sharded: Path) -> None:
    (sharded / "one" / SECOND).unlink()
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK103"})


def test_shard_missing_by_numbering(sharded: Path) -> None:
    (sharded / "one" / SECOND).unlink()
    (sharded / "one" / INDEX).unlink()
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK103"})


@pytest.mark.parametrize("count", ["00003", "20000", "99999999999999999999"])
def test_series_that_claims_more_shards(root: Path, count: str) -> None:
    one = root / "one"
    (one / SINGLE).rename(one / f"model-00001-of-{count}.safetensors")
    result = check(root)
    assert (result.code, result.codes) == (1, {"CK103"})


def test_ghost_tensor(sharded: Path) -> None:
    edit(sharded / "one" / INDEX, lambda d: d["weight_map"].update({"ghost": SECOND}))
    result = check(sharded)
    assert (result.code, result.codes) == (1, {"CK104"})
    (finding,) = (f for f in result.report["findings"] if f["code"] == "CK104")
    assert [place["tensor"] for place in finding["locations"]] == ["ghost"]


@pytest.mark.parametrize(
    "path",
    ["../../outside.safetensors", "{outside}", "a/../../../outside.safetensors", "..", "",
     "..\\outside.safetensors", "out\0side.safetensors"],
)  # fmt: skip
def test_index_that_leads_out(sharded: Path, tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside.safetensors"
    shutil.copy(sharded / "one" / SECOND, outside)
    path = path.format(outside=outside)
    edit(sharded / "one" / INDEX, lambda d: d["weight_map"].update({"model.norm.weight": path}))
    with watched(outside) as opened:
        result = check(sharded)
        assert not opened(), "a file outside the checkpoint was opened"
        outside.read_bytes()
        assert opened(), "the watch does not work"
    assert result.code == 1
    assert "CK105" in result.codes


class watched:
    """Whether the kernel saw somebody open the file, by inotify."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Callable[[], bool]:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        in_open = 0x20
        assert libc.inotify_add_watch(self.fd, os.fsencode(self.path), in_open) >= 0
        return self._opened

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _opened(self) -> bool:
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False


@pytest.mark.parametrize(
    "shard", ["x" * 300, "9" * 5_000, "no/such/folder.safetensors", "\ud800", f"{SECOND}/x", "."]
)
def test_index_that_leads_nowhere(sharded: Path, shard: str) -> None:
    edit(sharded / "one" / INDEX, lambda d: d["weight_map"].update({"model.norm.weight": shard}))
    result = check(sharded)
    assert result.code in (1, 2)
    assert result.codes <= {"CK101", "CK103"}


# Directories


def test_scheme_without_weights(root: Path) -> None:
    (root / "one" / SINGLE).unlink()
    result = check(root)
    assert (result.code, result.codes) == (1, {"CK106"})


def test_index_that_names_nothing(sharded: Path) -> None:
    (sharded / "one" / INDEX).write_text('{"weight_map": {}}')
    result = check(sharded)
    assert result.code == 1
    assert "CK106" in result.codes


@pytest.mark.parametrize("command", ["check", "scan"])
@pytest.mark.parametrize("make", [None, directory, Path.touch, loop, dangling, fifo])
def test_root_that_is_no_sweep(
    tmp_path: Path, command: str, make: Callable[[Path], object] | None
) -> None:
    root = tmp_path / "root"
    if make:
        make(root)
    result = run(command, root)
    assert result.code == 2
    assert result.out == b""
    assert "ckptdiff:" in result.err
    assert len(result.err.splitlines()) >= 2, "there is no next step"


@pytest.mark.parametrize("command", ["check", "scan"])
def test_working_directory_that_is_gone(tmp_path: Path, command: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    result = run(command, prefix=("sh", "-c", script, "sh", str(gone)))
    assert result.code == 2
    assert "ckptdiff:" in result.err


def test_cycles_of_links(root: Path, tmp_path: Path) -> None:
    (root / "one/again").symlink_to(root)
    (root / "up").symlink_to("..")
    (root / "left").mkdir()
    (root / "right").mkdir()
    (root / "left/link").symlink_to(root / "right")
    (root / "right/link").symlink_to(root / "left")
    result = check(root)
    assert result.code == 0
    assert result.report["passed_over"]


def test_links_that_lead_nowhere_are_not_passed_in_silence(root: Path) -> None:
    # Schemes on a disk that is not mounted look like this.
    dangling(root / "two")
    loop(root / "three")
    result = check(root)
    assert result.code == 2
    assert set(result.unread) == {"two", "three"}
    assert not result.report["verdict"]["complete"]


def test_thousands_of_directories(root: Path) -> None:
    for number in range(3_000):
        (root / f"empty{number}").mkdir()
    result = check(root)
    assert result.code == 0
    assert [row["id"] for row in result.report["schemes"]] == ["one"]


def test_thousands_of_schemes(tmp_path: Path) -> None:
    for number in range(2_000):
        scheme = tmp_path / f"root/s{number}"
        scheme.mkdir(parents=True)
        build.write_shard(scheme / SINGLE, {"a.weight": build.Spec("BF16", (4, 4), scheme.name)})
    result = run("check", tmp_path / "root")
    assert result.code == 0
    assert "2,000 schemes" in result.text


def test_scheme_that_is_a_link_to_another(root: Path) -> None:
    (root / "two").symlink_to("one")
    result = check(root)
    assert result.code == 0
    assert result.codes == set()
    assert "CK502" in result.infos
    (group,) = result.report["identity"]
    assert group["schemes"] == ["one", "two"]


def test_founding_bug_by_links(sweep: Path) -> None:
    low, high = (sweep / build.SweepSpec().scheme(percent) for percent in (10, 100))
    (low / SINGLE).unlink()
    (low / SINGLE).symlink_to(high / SINGLE)
    result = check(sweep)
    assert result.code == 1
    assert "CK501" in result.codes_of(low.name)


# Permissions, judged without root's rights


TOP10, TOP100 = (build.SweepSpec().scheme(percent) for percent in (10, 100))


@pytest.mark.parametrize(
    "place",
    [
        "",
        SINGLE,
        "config.json",
        "hf_quant_config.json",
        "layer-sensitivity",
        f"layer-sensitivity/{TOP10}_coverage_from_baseline.json",
        f"layer-sensitivity/{build.BASELINE}_quant_manifest.json",
    ],
)
def test_unreadable_among_readable(sweep: Path, place: str) -> None:
    (sweep / TOP10 / place).chmod(0)
    result = check(sweep, obedient=True)
    verdict = result.report["verdict"]
    assert result.code == 2
    assert result.unread == {f"{TOP10}/{place}".rstrip("/"): "permission denied"}
    assert "CK307" not in result.infos
    assert result.codes == set()
    assert (verdict["status"], verdict["complete"]) == ("pass", False)
    assert TOP10 not in verdict["safe"]
    assert len(verdict["safe"]) == 3
    assert "not the whole truth" in verdict["sentence"]
    scanned = run("scan", sweep, obedient=True)
    assert scanned.code == 2
    assert "permission denied" in " ".join(scanned.text.split())


def test_a_finding_outweighs_what_is_unread(sweep: Path) -> None:
    build.copy_weights(sweep, 100, (50,))
    (sweep / TOP10).chmod(0)
    result = check(sweep, obedient=True)
    assert result.code == 1
    assert "CK501" in result.codes
    assert not result.report["verdict"]["complete"]
    assert check(sweep, "--fail-on", "never", obedient=True).code == 2


def test_unreadable_root(sweep: Path) -> None:
    sweep.chmod(0)
    for command in ("check", "scan"):
        result = run(command, sweep, obedient=True)
        assert result.code == 2
        assert "permission denied" in (result.text + result.err).lower()


def test_root_behind_an_unreadable_directory(sweep: Path) -> None:
    sweep.chmod(0)
    for command in ("check", "scan"):
        assert run(command, sweep / TOP10, obedient=True).code == 2


def test_killed_export_with_an_unreadable_manifest(sweep: Path) -> None:
    # Only the manifest tells that this directory is a scheme at all.
    for name in (SINGLE, "hf_quant_config.json"):
        (sweep / TOP10 / name).unlink()
    (sweep / TOP10 / "layer-sensitivity").chmod(0)
    result = check(sweep, obedient=True)
    assert result.code in (1, 2)
    assert f"{TOP10}/layer-sensitivity" in result.unread


def test_full_precision_scheme_with_an_unreadable_shard(sweep: Path) -> None:
    # It could be taken for the base, and then nobody would hear of the shard.
    base = sweep / "base"
    (sweep.parent / "base").rename(base)
    (base / SINGLE).unlink()
    (base / "config.json").rename(base / "kept")
    build.write_weights(base, build.base_tensors(), shards=2)
    (base / "kept").rename(base / "config.json")
    (base / SECOND).chmod(0)
    result = check(sweep, obedient=True)
    assert result.code == 2
    assert list(result.unread) == [f"base/{SECOND}"]


def test_settings_that_cannot_be_read(sweep: Path) -> None:
    settings = sweep.parent / "ckptdiff.toml"
    settings.write_text('fail_on = "never"')
    settings.chmod(0)
    result = run("check", sweep, obedient=True, cwd=sweep.parent)
    assert result.code == 2
    assert "permission denied" in result.err


# Documents

CONTENTS = {
    "nothing": b"",
    "text": b"hello",
    "list": b"[]",
    "string": b'"x"',
    "null": b"null",
    "cut": b'{"a": ',
    "nul": b'{"a": "\0"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "latin-1": b'{"a": "\xe9"}',
    "deep": DEEP,
    "deep-inside": b'{"a": ' + DEEP + b"}",
    "digits": b'{"a": ' + DIGITS + b"}",
}
DOCUMENTS: dict[str, Callable[[Path], Path]] = {
    "config": lambda scheme: scheme / "config.json",
    "quant-config": lambda scheme: scheme / "hf_quant_config.json",
    "index": lambda scheme: scheme / INDEX,
    "coverage": coverage_of,
    "baseline": baseline_of,
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_that_is_no_json_object(tmp_path: Path, document: str) -> None:
    for case, content in CONTENTS.items():
        scheme = write_one(tmp_path / case, shards=2, salt=case)
        DOCUMENTS[document](scheme).write_bytes(content)
    result = check(tmp_path)
    assert result.code == 1
    # Its weights differ from the others', so that nothing is said about several schemes.
    assert {case: result.codes_of(case) for case in CONTENTS} == {
        case: {"CK101"} for case in CONTENTS
    }
    assert result.report["verdict"]["safe"] == []


WRONG: dict[str, list[tuple[str, object]]] = {
    "config": [
        ("architectures", "Llama"),
        ("architectures", [1]),
        ("hidden_size", "big"),
        ("hidden_size", 1.5),
        ("hidden_size", 10**40),
        ("num_hidden_layers", [4]),
        ("text_config", [1]),
        ("quantization_config", "fp8"),
        ("quantization_config.quant_method", 8),
        ("quantization_config.quant_algo", ["FP8"]),
        ("quantization_config.producer", "modelopt"),
        ("quantization_config.config_groups", [1]),
        ("quantization_config.ignore", "lm_head"),
        ("quantization_config.quantized_layers", ["a"]),
    ],
    "quant-config": [
        ("quantization", None),
        ("quantization", "FP8"),
        ("producer", ["modelopt"]),
        ("producer.version", 0.47),
        ("quantization.quant_algo", 8),
        ("quantization.kv_cache_quant_algo", {}),
        ("quantization.group_size", "128"),
        ("quantization.exclude_modules", "lm_head"),
        ("quantization.exclude_modules", [None]),
        ("quantization.quantized_layers", {"a": "FP8"}),
        ("quantization.quantized_layers", {"a": {"quant_algo": 1}}),
    ],
    "index": [
        ("weight_map", None),
        ("weight_map", []),
        ("weight_map.model|norm|weight", 1),
        ("weight_map.model|norm|weight", None),
        ("metadata", []),
        ("metadata.total_size", "big"),
        ("metadata.total_size", 1e300),
    ],
    "coverage": [
        ("baseline_dir", 1),
        ("baseline_manifest", ["a"]),
        ("scheme_name", {}),
        ("top_percent", "50"),
        ("top_percent", True),
        ("coverage_fraction", [0.5]),
        ("num_layers_total", "4"),
        ("num_layers_selected", 1.5),
        ("num_layers_dropped", {}),
        ("selected_layers", None),
        ("selected_layers", {}),
        ("selected_layers", "layers.0"),
        ("selected_layers", [1]),
        ("dropped_layers", [["a"]]),
    ],
    "baseline": [
        ("scheme", "name"),
        ("scheme.name", 1),
        ("autoquant_state", []),
        ("autoquant_state.constraints", 11.0),
        ("autoquant_state.constraints.effective_bits", "11"),
        ("layer_sensitivity", 1),
        ("layer_sensitivity", [1]),
        ("layer_sensitivity", [{"formats": []}]),
        ("layer_sensitivity", {"a": 1}),
        ("layer_sensitivity", {"a": {"formats": "FP8"}}),
        ("layer_sensitivity", {"a": {"rank": "first"}}),
        ("layer_sensitivity", {"a": {"importance": []}}),
        ("sensitivity_ranking", {}),
        ("sensitivity_ranking", [1]),
        ("sensitivity_ranking", [{"importance": 1}]),
    ],
}


def put(document: Any, path: str, value: object) -> None:
    *above, last = (part.replace("|", ".") for part in path.split("."))
    for part in above:
        document = document[part]
    document[last] = value


@pytest.mark.parametrize("document", DOCUMENTS)
def test_field_of_a_wrong_type(tmp_path: Path, document: str) -> None:
    expected = {}
    for number, (path, value) in enumerate(WRONG[document]):
        id = f"s{number}"
        scheme = write_one(tmp_path / id, shards=2, salt=id)
        edit(DOCUMENTS[document](scheme), lambda d, p=path, v=value: put(d, p, v))
        expected[f"{id} {path} = {value!r}"] = {"CK101"}
    result = check(tmp_path)
    assert result.code == 1
    assert {case: result.codes_of(case.split()[0]) for case in expected} == expected


VALUES: tuple[object, ...] = (
    None, True, 0, -1, 10**30, 1.5, 1e308, "", "x", "\ud800\0", [], [[]], [None], {}, {"a": {}},
    {"type": {"type": {"type": 1}}},
)  # fmt: skip


def paths_of(value: object, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value of a JSON document, its first list items only."""
    yield above
    if isinstance(value, dict):
        for key, below in list(value.items())[:12]:
            yield from paths_of(below, (*above, key))
    elif isinstance(value, list):
        for number, below in list(enumerate(value))[:1]:
            yield from paths_of(below, (*above, number))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_value_of_any_field_ends_a_run(sharded: Path, document: str) -> None:
    file = DOCUMENTS[document](sharded / "one")
    original = file.read_text()
    for path in paths_of(json.loads(original)):
        for value in VALUES:
            changed = json.loads(original)
            if path:
                inner = changed
                for part in path[:-1]:
                    inner = inner[part]
                inner[path[-1]] = value
            else:
                changed = value
            file.write_text(json.dumps(changed))
            report = ckptdiff.check(sharded, hashes=False)
            assert ckptdiff.exit_code(report) in (0, 1, 2)


def test_value_nested_nearly_too_deep(tmp_path: Path) -> None:
    for depth in (100, 300, 600, 900, 980, 990):
        scheme = write_one(tmp_path / f"s{depth}", salt=str(depth))
        value = '{"type":' * depth + "1" + "}" * depth
        edit(scheme / "config.json", lambda d: d["quantization_config"].update(kv_cache_scheme=0))
        config = scheme / "config.json"
        config.write_text(config.read_text().replace('"kv_cache_scheme": 0',
                                                     f'"kv_cache_scheme": {value}'))  # fmt: skip
        assert "kv_cache_scheme" in config.read_text()
    assert check(tmp_path).code in (0, 1)


# Files that change under the reader


def check_while(root: Path, change: Callable[[], object]) -> CheckReport:
    """Check `root`; `change` runs when the headers are read and the hashing begins."""
    happened = []

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "hash":
            change()
            happened.append(event)

    report = ckptdiff.check(root, sink=sink)
    assert len(happened) == 1
    return report


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


CHANGES: dict[str, Callable[[Path], object]] = {
    "changes": flip,
    "grows": lambda file: os.truncate(file, file.stat().st_size + 8),
    "shrinks": lambda file: os.truncate(file, file.stat().st_size - 8),
    "becomes-empty": lambda file: os.truncate(file, 0),
    "vanishes": lambda file: file.unlink(),
    "becomes-a-fifo": fifo,
    "becomes-another-file": lambda file: (
        shutil.copy(file, f"{file}.new") and Path(f"{file}.new").rename(file)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_shard_that_changes_while_it_is_read(sweep: Path, change: str) -> None:
    report = check_while(sweep, lambda: CHANGES[change](sweep / TOP10 / SINGLE))
    assert ckptdiff.exit_code(report) == 2
    assert [item.path for item in report.unread] == [f"{TOP10}/{SINGLE}"]
    assert not report.verdict.complete
    assert {row.id: row.status for row in report.schemes}[TOP10] == "unread"
    assert TOP10 not in report.verdict.safe
    assert len(report.verdict.safe) == 3
    assert {finding.severity for finding in report.findings} <= {"info"}


# Names

EVIL = (
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x9b2J",
    "line\nfeed\rreturn\ttab\x08\x7f",
    "\u202eright to left\u2066",
    "\u2028line\u2029paragraph",
    "zero\u200bwidth\ufeff",
    "\U000e0041tag",
)


def evil_result(root: Path, tmp_path: Path) -> Any:
    """The run over `root`; text, scan and progress must be as harmless as JSON."""
    text = tmp_path / "report.txt"
    result = check(root, "-o", text, "--progress", "json")
    assert result.out.isascii()
    harmless(text.read_text("utf-8"))
    for line in result.err.splitlines():
        json.loads(line)
    assert run("scan", root).code in (0, 2)
    assert run("scan", root, "--json").out.isascii()
    return result


def test_names_of_tensors_and_shards(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, evil in enumerate((*EVIL, "nul\0")):
        tensors = {
            f"{evil}.weight": build.Spec("F8_E4M3", (4, 4), evil),
            f"{evil}.weight_scale": build.Spec("F32", (), evil),
        }
        scheme = build.write_scheme(root / f"s{number}", tensors, shards=2)
        edit(
            scheme / INDEX,
            lambda d, e=evil: d["weight_map"].update(
                {f"ghost {e}": SECOND, f"moved {e}": f"{e}.safetensors", f"out {e}": f"../{e}"}
            ),
        )
        file = scheme / SECOND
        file.write_bytes(file.read_bytes()[:-1])
    result = evil_result(root, tmp_path)
    assert result.code == 1
    assert result.codes >= {"CK102", "CK103", "CK104", "CK105"}


def test_lone_surrogates_in_headers(tmp_path: Path) -> None:
    root = tmp_path / "root"
    one, two = root / "one", root / "two"
    one.mkdir(parents=True)
    two.mkdir()
    entry = b'":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    (one / SINGLE).write_bytes(framed(b'{"\\ud800\\u001b[2J' + entry, b"xx"))
    (two / SINGLE).write_bytes(framed(b'{"__metadata__":{"a":"\\udfff"},"b' + entry, b"xx"))
    assert evil_result(root, tmp_path).code in (0, 1)


def test_names_of_directories(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = [os.fsencode(evil) for evil in EVIL] + [b"\xff\xfebytes", b"\xed\xa0\x80"]
    for number, name in enumerate(names):
        one = write_one(root / f"s{number}", salt=str(number % 2))
        one.rename(root / os.fsdecode(name))
        (root / f".{os.fsdecode(name)}").mkdir()
    result = evil_result(root, tmp_path)
    assert len(result.report["schemes"]) == len(names)
    assert "CK502" in result.infos


def test_root_with_a_terrible_name(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff\x1b[2J\nroot")
    write_one(root / "one")
    assert evil_result(root, tmp_path).code == 0
    for wrong in (root / "nothing", root / f"one/{SINGLE}"):
        assert run("check", wrong).code == 2
        assert run("check", root, "--base", wrong).code == 2
        assert run("check", root, "--config", wrong).code == 2
        assert run("check", root, "-o", wrong).code == 2


def test_strings_of_documents(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, evil in enumerate((*EVIL, "nul\0", "\ud800")):
        one = write_one(root / f"s{number}", salt=str(number))
        edit(coverage_of(one), lambda d, e=evil: d.update(
            scheme_name=e, baseline_dir=e, baseline_manifest=f"{e}_quant_manifest.json",
            selected_layers=[*d["selected_layers"], e], dropped_layers=[f"{e}.quant_recipe", e],
        ))  # fmt: skip
        edit(baseline_of(one), lambda d, e=evil: d["scheme"].update(name=e))
        edit(one / "config.json", lambda d, e=evil: d.update(
            architectures=[e], quantization_config={
                "quant_method": e, "quant_algo": e, "producer": {"name": e, "version": e}
            },
        ))  # fmt: skip
        edit(one / "hf_quant_config.json", lambda d, e=evil: d.update(
            producer={"name": e}, quantization={"quant_algo": e, "exclude_modules": [e]}
        ))  # fmt: skip
        bad = write_one(root / f"bad{number}", salt=f"bad{number}")
        edit(baseline_of(bad), lambda d, e=evil: d["layer_sensitivity"].update({e: 1}))
    result = evil_result(root, tmp_path)
    assert result.code == 1
    assert result.codes >= {"CK101", "CK303"}


def test_names_that_look_like_options() -> None:
    # What a shell makes of * in a directory with such a name.
    evil = "".join(EVIL)
    for word in (f"--{evil}", f"-{evil}", f"--format={evil}", f"--jobs={evil}"):
        assert run("check", word).code == 2
    assert run(f"x{evil}").code == 2
    assert run("rule", evil).code == 2
    assert run("check", ".", "--select", evil).code == 2


def test_reports_where_stdout_and_stderr_know_only_ascii(root: Path) -> None:
    wide = root / "größe 大小"
    (root / "one").rename(wide)
    (wide / SINGLE).write_bytes(b"")
    env = {"PYTHONIOENCODING": "ascii"}
    result = run("check", root, env=env)
    assert result.code == 1
    assert "größe 大小" in result.text
    assert run("check", root / "größe", env=env).code == 2


# --base


@pytest.mark.parametrize(
    "make",
    [
        None,
        Path.touch,
        Path.mkdir,
        loop,
        dangling,
        fifo,
        lambda path: write_one(path, salt="quantized"),
        lambda path: break_base(path, lambda raw: raw[:-1]),
        lambda path: break_base(path, lambda raw: b"no header"),
        lambda path: break_base(path, lambda raw: b""),
    ],
    ids=["nothing", "file", "empty-directory", "loop", "dangling", "fifo", "quantized",
         "truncated", "malformed", "empty-shard"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "scan"])
def test_base_that_is_none(
    root: Path, tmp_path: Path, command: str, make: Callable[[Path], object] | None
) -> None:
    base = tmp_path / "base"
    if make:
        make(base)
    result = run(command, root, "--base", base)
    assert result.code == 2
    assert result.out == b""
    assert "base" in result.err
    assert len(result.err.splitlines()) >= 2, "there is no next step"


def break_base(path: Path, change: Callable[[bytes], bytes]) -> None:
    build.write_base(path, 1)
    file = path / SINGLE
    file.write_bytes(change(file.read_bytes()))


def test_base_without_one_of_its_shards(root: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    build.write_weights(base, build.base_tensors(1), shards=2)
    build.write_json(base / "config.json", build.config(1))
    assert run("check", root, "--base", base).code == 0
    (base / SECOND).unlink()
    assert run("check", root, "--base", base).code == 2


def test_broken_base_that_is_found_by_search(sweep: Path) -> None:
    outside = sweep.parent / "base"
    file = outside / SINGLE
    file.write_bytes(file.read_bytes()[:-1])
    result = check(sweep)
    assert result.code == 0
    assert result.report["base"] is None
    assert check(sweep, "--require", "base").code == 2
    # Inside ROOT it is one of the checkpoints to judge, and must not drop out of sight.
    outside.rename(sweep / "base")
    result = check(sweep)
    assert result.code == 1
    assert "CK102" in result.codes_of("base")


@pytest.mark.parametrize("words", [("check", ""), ("diff", "", "."), ("scan", ".", "--base", "")])
def test_an_empty_path_is_not_the_working_directory(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.code == 2
    assert "it is empty" in result.err
