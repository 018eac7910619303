"""The project's checkpoints: what is written is read again exactly, and every lie has its code."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import re
import struct
import time
from pathlib import Path

import pytest
import torch

from bench.fps import CPU_SIZES, GPU_SIZES
from models import checkpoint, registry
from models.backbones.stylegan2 import Generator
from models.checkpoint_config import FAMILIES, Number, check_config, most_elements
from models.errors import BadCheckpoint, BadConfig

ROOT = Path(__file__).parents[2]
CONFIG = {
    "z_dim": 8,
    "c_dim": 0,
    "w_dim": 8,
    "img_resolution": 8,
    "img_channels": 3,
    "channel_base": 64,
    "channel_max": 8,
    "mapping_kwargs": {"num_layers": 2},
}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return Generator(**CONFIG).state_dict()


@pytest.fixture
def saved(tmp_path, state):
    """A checkpoint `tmp_path/net`, loadable."""
    checkpoint.save(
        tmp_path / "net", family="stylegan2", config=CONFIG, state=state, meta={"fps": 25}
    )
    return tmp_path / "net"


def code_of(path, **limits) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        checkpoint.load(path, **limits)
    assert len(str(caught.value)) < 800
    return caught.value.code


def rewrite(stem: Path, blob: bytes) -> None:
    """Other tensors, with a hash that agrees."""
    stem.with_suffix(".safetensors").write_bytes(blob)
    about = json.loads(stem.with_suffix(".json").read_text())
    about["tensors"] = {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    stem.with_suffix(".json").write_text(json.dumps(about))


def with_header(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


# What is written is read again.


@pytest.mark.parametrize("suffix", ["", ".json", ".safetensors"])
def test_a_checkpoint_is_read_again_exactly_from_any_of_its_paths(saved, state, suffix):
    found = checkpoint.load(f"{saved}{suffix}")
    assert (found.family, found.config, found.meta) == ("stylegan2", CONFIG, {"fps": 25})
    assert set(found.state) == set(state)
    assert all(torch.equal(found.state[key], state[key]) for key in state)


def test_a_network_is_built_with_the_weights_and_without_gradients(saved, state):
    made = checkpoint.build(checkpoint.load(saved))
    assert isinstance(made, Generator) and not made.training
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_building_leaves_the_global_random_state(saved):
    found = checkpoint.load(saved)
    before = torch.get_rng_state()
    checkpoint.build(found)
    assert torch.equal(before, torch.get_rng_state())


def test_equal_weights_give_equal_files(tmp_path, state):
    for name in ("a", "b"):
        backwards = dict(reversed(state.items()))
        checkpoint.save(
            tmp_path / name,
            family="stylegan2",
            config=CONFIG,
            state=backwards if name == "b" else state,
        )
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_shared_and_strided_tensors_are_written(tmp_path, state):
    weight = torch.arange(64.0).reshape(1, 4, 4, 4).to(memory_format=torch.channels_last)
    both = {"a": weight, "b": weight}
    checkpoint.save(tmp_path / "x", family="stylegan2", config=CONFIG, state=both)
    assert torch.equal(checkpoint.load(tmp_path / "x").state["b"], weight)


def test_a_dot_in_the_name_is_kept(tmp_path, state):
    written = checkpoint.save(
        tmp_path / "net.v2", family="stylegan2", config=CONFIG, state=state, meta=None
    )
    assert written.name == "net.v2.json"
    assert checkpoint.load(tmp_path / "net.v2").meta == {}


# Writing is all or nothing.


def test_a_failed_write_leaves_the_old_files(saved, state, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        checkpoint.save(saved, family="stylegan2", config=CONFIG, state=state)
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_a_write_interrupted_between_the_files_is_refused_and_not_mixed(saved, state, monkeypatch):
    replace = os.replace

    def only_tensors(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", only_tensors)
    other = {key: value + 1 for key, value in state.items()}
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, family="stylegan2", config=CONFIG, state=other)
    assert code_of(saved) == "CKPT_HASH_MISMATCH"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_what_would_not_load_is_not_written(tmp_path, state):
    bad = {**state, "mapping.w_avg": torch.full((8,), float("nan"))}
    with pytest.raises(BadCheckpoint, match="CKPT_NONFINITE.*mapping.w_avg"):
        checkpoint.save(tmp_path / "a", family="stylegan2", config=CONFIG, state=bad)
    with pytest.raises(BadCheckpoint, match="CKPT_UNKNOWN_FAMILY"):
        checkpoint.save(tmp_path / "a", family="stylegan9", config=CONFIG, state=state)
    with pytest.raises(BadCheckpoint, match="CKPT_TOO_BIG"):
        checkpoint.save(
            tmp_path / "a", family="stylegan2", config=CONFIG, state=state, meta={"a": "b" * 2**21}
        )
    assert not list(tmp_path.iterdir())


# Files that are something else.


def test_a_missing_file_is_refused(saved, tmp_path):
    assert code_of(tmp_path / "other") == "CKPT_NOT_FOUND"
    saved.with_suffix(".safetensors").unlink()
    assert code_of(saved) == "CKPT_NOT_FOUND"
    assert code_of("a\0b") == "CKPT_NOT_FOUND"


def test_a_pickle_is_sent_to_the_converter(saved, tmp_path):
    pickled = ROOT / "tests/goldens/pickles/pickle_t.pkl"
    with pytest.raises(BadCheckpoint, match="stylewire convert") as caught:
        checkpoint.load(pickled)
    assert caught.value.code == "CKPT_NEEDS_CONVERSION"
    rewrite(saved, pickled.read_bytes())  # and by its bytes, not by its name
    assert code_of(saved) == "CKPT_NEEDS_CONVERSION"


def test_a_zip_is_refused_under_any_name(saved, tmp_path):
    for path in (tmp_path / "a.pth", saved.with_suffix(".safetensors")):
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    assert code_of(tmp_path / "a.pth") == "CKPT_UNKNOWN_FORMAT"
    rewrite(saved, b"PK\x03\x04" + bytes(100))
    assert code_of(saved) == "CKPT_UNKNOWN_FORMAT"


def test_a_folder_and_a_pipe_are_refused_at_once(saved, tmp_path):
    for make in (os.mkdir, os.mkfifo):
        path = saved.with_suffix(".safetensors")
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        assert code_of(saved) == "CKPT_UNKNOWN_FORMAT"


def test_a_file_over_the_limit_is_refused_before_it_is_read(saved):
    with saved.with_suffix(".safetensors").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: reading it would take for ever
    assert code_of(saved) == "CKPT_TOO_BIG"
    assert code_of(saved, max_bytes=1000) == "CKPT_TOO_BIG"


# The JSON.


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "CKPT_CORRUPT"),
        ("[]", "CKPT_CORRUPT"),
        ("{", "CKPT_CORRUPT"),
        ('{"format": NaN}', "CKPT_CORRUPT"),
        ('{"format": 1e999}', "CKPT_CORRUPT"),
        ('{"format": -1e999}', "CKPT_CORRUPT"),
        ('{"format": 1, "format": 2}', "CKPT_DUPLICATE_KEY"),
        ("[" * 100_000, "CKPT_TOO_DEEP"),
        ('{"a":' * 50_000, "CKPT_TOO_DEEP"),
        ('{"format": ' + "9" * 10_000 + "}", "CKPT_CORRUPT"),
        ("{}", "CKPT_UNKNOWN_FORMAT"),
        ('{"format": "stylewire-checkpoint", "format_version": 2}', "CKPT_UNKNOWN_FORMAT"),
        ('{"format": "stylewire-checkpoint", "format_version": 1}', "CKPT_CORRUPT"),
        ('{"a": "' + "b" * (1 << 20) + '"}', "CKPT_TOO_BIG"),
    ],
)
def test_a_json_that_is_none_of_ours_is_refused(saved, text, code):
    saved.with_suffix(".json").write_text(text)
    assert code_of(saved) == code


def test_a_json_that_is_not_utf8_is_refused(saved):
    saved.with_suffix(".json").write_bytes(b'{"\xff": 1}')
    assert code_of(saved) == "CKPT_CORRUPT"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"family": "stylegan9"}, "CKPT_UNKNOWN_FAMILY"),
        ({"family": ["stylegan2"]}, "CKPT_UNKNOWN_FAMILY"),
        ({"surplus": 1}, "CKPT_CORRUPT"),
        ({"meta": []}, "CKPT_CORRUPT"),
        ({"tensors": {}}, "CKPT_HASH_MISMATCH"),
        ({"config": {}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "channel_maximum": 8}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "channel_max": "8"}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "channel_max": True}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "channel_max": 8.5}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "channel_max": 8.0}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "kernel_size": 4}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "img_resolution": 1 << 40}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "w_dim": -1}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "z_dim": 0}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "channel_base": 4}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "architecture": "skipp"}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "resample_filter": [1] * 1000}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "mapping_kwargs": {"layers": 2}}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "mapping_kwargs": 2}}, "CKPT_BAD_CONFIG"),
        ({"config": {**CONFIG, "img_resolution": None}}, "CKPT_BAD_CONFIG"),
    ],
)
def test_a_field_that_lies_is_refused(saved, change, code):
    path = saved.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert code_of(saved) == code


def test_a_refused_argument_is_named_with_what_it_may_be():
    with pytest.raises(BadCheckpoint, match=r"config.w_dim is -1, not a whole number from 1 to"):
        check_config("stylegan2", {**CONFIG, "w_dim": -1})
    with pytest.raises(BadCheckpoint, match="'channel_maximum'; known: activation, architecture"):
        check_config("stylegan2", {**CONFIG, "channel_maximum": 1})


# The tensors.


def test_a_changed_byte_is_refused(saved):
    path = saved.with_suffix(".safetensors")
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    assert code_of(saved) == "CKPT_HASH_MISMATCH"


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
TWICE += b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        (b"", "CKPT_TRUNCATED"),
        (b"\x01\x02", "CKPT_TRUNCATED"),
        (struct.pack("<Q", 1 << 40) + b"{}", "CKPT_LENGTH_LIE"),
        (struct.pack("<Q", (1 << 64) - 1) + b"{}", "CKPT_LENGTH_LIE"),
        (with_header(TWICE, bytes(4)), "CKPT_DUPLICATE_KEY"),
        (with_header(b"{" + b'"a":{' * 9000), "CKPT_TOO_DEEP"),
        (with_header(b"{not json}"), "CKPT_CORRUPT"),
        (with_header({"a": 1}), "CKPT_CORRUPT"),
        (with_header({"__metadata__": [{}]}), "CKPT_CORRUPT"),
        (with_header({"__metadata__": {"a": 1}}), "CKPT_CORRUPT"),
        (with_header({"__metadata__": {"a": {}}}), "CKPT_CORRUPT"),
        (with_header({"__metadata__": {str(i): "" for i in range(300)}}), "CKPT_CORRUPT"),
        (with_header(b'{"__metadata__":[' + b"{}," * 30_000 + b"{}]}"), "CKPT_TOO_BIG"),
        (with_header(b'{"__metadata__":[' + b"[]," * 50_000 + b"[]]}"), "CKPT_TOO_BIG"),
        (with_header(b'{"__metadata__":[' + b"0," * 400_000 + b"0]}"), "CKPT_TOO_BIG"),
        (with_header(b"{" + b" " * (5 << 20) + b"}"), "CKPT_TOO_BIG"),
        (with_header({"a": entry([1], 0, 4, "F31")}, bytes(4)), "CKPT_CORRUPT"),
        (with_header({"a": entry([-1], 0, 4)}, bytes(4)), "CKPT_CORRUPT"),
        (with_header({"a": entry([True], 0, 4)}, bytes(4)), "CKPT_CORRUPT"),
        (with_header({"a": entry([1], 4, 0)}, bytes(4)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
        (with_header({"a": entry([1] * 9, 0, 4)}, bytes(4)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
        (with_header({"a": entry([10**6, 10**6], 0, 4)}, bytes(4)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
        (with_header({"a": entry([1 << 62, 4], 0, 0)}), "CKPT_SHAPE_EXCEEDS_STORAGE"),
        (with_header({"a": entry([2], 0, 8)}, bytes(4)), "CKPT_LENGTH_LIE"),
        (with_header({"a": entry([1], 0, 4)}, bytes(8)), "CKPT_CORRUPT"),  # bytes left over
        (with_header({"a": entry([1], 4, 8)}, bytes(8)), "CKPT_CORRUPT"),  # a hole
        (
            with_header({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, bytes(8)),
            "CKPT_CORRUPT",  # an overlap
        ),
        (with_header({"a": entry([1], 0, 4)}, struct.pack("<f", float("nan"))), "CKPT_NONFINITE"),
        (with_header({"a": entry([1], 0, 4)}, struct.pack("<f", float("inf"))), "CKPT_NONFINITE"),
    ],
)
def test_a_tensor_file_that_lies_is_refused(saved, blob, code):
    rewrite(saved, blob)
    assert code_of(saved) == code


def test_a_header_of_many_objects_takes_little_memory():
    blob = with_header(b'{"__metadata__":[' + b"{}," * ((4 << 20) // 3 - 20) + b"{}]}")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak_kb()
    with pytest.raises(BadCheckpoint):
        checkpoint.read_tensors(blob)
    assert peak_kb() - before < 32 << 10


def test_as_many_tensors_as_a_file_may_have_are_read():
    names = [f"synthesis.b1024.a_long_name_of_a_layer.{i}.weight" for i in range(20_000)]
    header = {name: entry([1] * 8, 4 * i, 4 * i + 4) for i, name in enumerate(names)}
    blob = with_header({"__metadata__": {"format": "pt"}, **header}, bytes(4 * len(names)))
    assert len(checkpoint.read_tensors(blob)) == len(names)


def test_a_name_like_a_path_is_only_a_name(saved):
    rewrite(saved, with_header({"../../etc/x": entry([1], 0, 4)}, bytes(4)))
    found = checkpoint.load(saved)
    with pytest.raises(BadCheckpoint, match="CKPT_ARCH_MISMATCH"):
        checkpoint.build(found)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_mutated_tensor_files_are_refused_or_sound(state, tmp_path):
    checkpoint.save(
        tmp_path / "net",
        family="stylegan2",
        config=CONFIG,
        state={key: state[key] for key in list(state)[:6]},
    )
    blob = (tmp_path / "net.safetensors").read_bytes()
    header = 8 + int.from_bytes(blob[:8], "little")
    rng = random.Random(7)
    codes: dict[str, int] = {}
    for _ in range(20_000):
        changed = bytearray(blob)
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(header if rng.random() < 0.9 else len(blob)) % len(changed)
            kind = rng.randrange(4)
            if kind == 0:
                changed[at] = rng.randrange(256)
            elif kind == 1:
                changed[at:at] = rng.choice((b"0", b"9", b'"', b"{", b",", b"[", rng.randbytes(3)))
            elif kind == 2:
                del changed[at : at + rng.randrange(1, 20)]
            elif changed[at : at + 1].isdigit():
                changed[at : at + 1] = str(rng.randrange(10**9)).encode()
        try:
            checkpoint.read_tensors(bytes(changed))
            code = "sound"
        except BadCheckpoint as error:
            code = error.code
        codes[code] = codes.get(code, 0) + 1
    # Each kind of lie is met, and there is no other exception.
    assert {"sound", "CKPT_CORRUPT", "CKPT_SHAPE_EXCEEDS_STORAGE", "CKPT_LENGTH_LIE"} <= set(codes)


# Architecture.


def refusal(found, **changes) -> BadCheckpoint:
    changed = checkpoint.Checkpoint(**{**vars(found), **changes})
    with pytest.raises(BadCheckpoint) as caught:
        checkpoint.build(changed)
    return caught.value


def test_missing_left_over_and_misshapen_tensors_are_named(saved):
    found = checkpoint.load(saved)
    some = dict(list(found.state.items())[7:])
    error = refusal(found, state=some)
    assert error.code == "CKPT_ARCH_MISMATCH" and "7 tensors are missing" in str(error)
    assert sum(key in str(error) for key in found.state if key not in some) == 5
    more = {**found.state, "a": torch.zeros(1)}
    assert "1 tensors are not known: a." in str(refusal(found, state=more))
    other = {**found.state, "mapping.w_avg": torch.zeros(9)}
    assert "mapping.w_avg [9] instead of [8]" in str(refusal(found, state=other))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.int32, torch.float16])
def test_weights_of_another_element_type_are_refused(saved, dtype):
    found = checkpoint.load(saved)
    odd = torch.ones(8, dtype=dtype)
    if dtype == torch.float64:
        odd[0] = 1e300  # finite, and infinity once it is a weight
    error = refusal(found, state={**found.state, "mapping.w_avg": odd})
    assert error.code == "CKPT_ARCH_MISMATCH" and "instead of float32" in str(error)


def test_a_configuration_the_network_refuses_is_a_refusal(saved):
    found = checkpoint.load(saved)
    error = refusal(found, config={**CONFIG, "img_resolution": 12})
    assert error.code == "CKPT_BAD_CONFIG" and "12" in str(error)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_configuration_far_larger_than_its_tensors_allocates_nothing(saved, family):
    found = checkpoint.load(saved)
    huge = {
        "z_dim": 16384,
        "c_dim": 65536,
        "w_dim": 16384,
        "img_resolution": 4096,
        "img_channels": 64,
    }
    widths = {"channel_base": 1 << 20, "channel_max": 8192}
    if family == "stylegan_v":
        huge |= {"synthesis_kwargs": widths, "cfg": {"z_dim": 16384}}
    else:
        huge |= widths
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started = peak_kb(), time.process_time()
    error = refusal(found, family=family, config=huge)
    assert error.code == "CKPT_ARCH_MISMATCH"
    assert peak_kb() - before < 300 << 10  # the first layer alone would be 1 GiB
    assert time.process_time() - started < 10


def test_a_configuration_somewhat_larger_than_its_tensors_takes_little(saved):
    found = checkpoint.load(saved)
    wide = {
        **CONFIG,
        "z_dim": 11_000,
        "mapping_kwargs": {"num_layers": 2, "layer_features": 11_000},
    }
    refusal(found, config={**wide, "z_dim": 12_000}, state={})  # torch loads what it needs, once
    Path("/proc/self/clear_refs").write_text("5")
    before, started = peak_kb(), time.process_time()
    assert refusal(found, config=wide, state={}).code == "CKPT_ARCH_MISMATCH"
    assert peak_kb() - before < 100 << 10  # made in full: 480 MB a layer
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("name", [*CPU_SIZES, *GPU_SIZES])
def test_the_bound_on_a_networks_size_holds_and_honest_files_are_built_at_once(name):
    family, config = (CPU_SIZES | GPU_SIZES)[name].family, (CPU_SIZES | GPU_SIZES)[name].config
    with torch.device("meta"):
        made = importlib.import_module(checkpoint.GENERATORS[family]).Generator(**config)
    there = sum(tensor.numel() for tensor in made.state_dict().values())
    bound = most_elements(family, config)
    assert there <= bound <= checkpoint.OUTLINE_FROM + checkpoint.OUTLINE_TIMES * there


def peak_kb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


# Every key, and combinations of them.


SIZES = {key: CONFIG[key] for key in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")}
SMALL = {
    "stylegan2": CONFIG,
    "stylegan3": {**CONFIG, "img_resolution": 16, "num_layers": 4},
    "stylegan_v": {
        **SIZES,
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": {"channel_base": 64, "channel_max": 8},
        "cfg": {"z_dim": 8, "motion": {"z_dim": 8, "v_dim": 8}, "time_enc": {"dim": 4}},
    },
}


def entries(schema, where=()):
    for key, rule in schema.items():
        if isinstance(rule, dict):
            yield from entries(rule, (*where, key))
        else:
            yield (*where, key), rule


EVERY = [(family, *item) for family, schema in FAMILIES.items() for item in entries(schema)]


def with_value(config, where, value):
    inner = with_value(config.get(where[0], {}), where[1:], value) if where[1:] else value
    return {**config, where[0]: inner}


@pytest.mark.parametrize(
    ("family", "where", "rule"), EVERY, ids=[f"{family}.{'.'.join(w)}" for family, w, _ in EVERY]
)
def test_each_key_takes_only_what_it_is_for(family, where, rule):
    def taken(value) -> bool:
        try:
            check_config(family, with_value(SMALL[family], where, value))
        except BadCheckpoint as error:
            assert error.code == "CKPT_BAD_CONFIG"
            return False
        return True

    never = [[[1]], {}, "x", b"1", float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)]
    for value in [*never, -1e300, 1e300, 1 << 40, "1", 1 + 0j]:
        assert not taken(value), value
    if isinstance(rule, Number):
        assert not taken(True) and not taken([16])
        assert taken(None) == rule.optional
        middle = min(16, int(rule.high))
        assert taken(middle)
        # Constructors take no 16.0 for a 16.
        assert taken(float(middle)) == (not rule.whole)
        assert not taken(8.5) or not rule.whole


ODD_VALUES = (
    *(0, 1, 2, 3, 5, 7, 8, 13, 16, 31, 64, 100, 255, 1000, 4096, 16384, 65536, 1 << 20),
    *(-1, 1 << 31, 1 << 62, 10**30, 10**400, True, False, None, "x", "8", "", [], [1], {}),
    *(0.0, -0.0, 5e-324, 1e-6, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 64.0, 1e3, 1e9, 1e300, -1e300),
    *("linear", "conv", "autoregressive", "sum_w", "concat_w", "const", "orig", "resnet"),
    *([1, 3, 3, 1], [1e6] * 32, [0], [float("1e-300")] * 3),
)  # fmt: skip
ODD_META = ("walk_speed", "walk_radius", "walk_loop", "trained", "fps")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_odd_configurations_are_refused_or_sound(family, tmp_path):
    """Through loading and building, network and system."""
    rng = random.Random(3)
    with torch.random.fork_rng(devices=[]):
        made = importlib.import_module(checkpoint.GENERATORS[family]).Generator(**SMALL[family])
    net = tmp_path / "net"
    checkpoint.save(net, family=family, config=SMALL[family], state=made.state_dict())
    about = json.loads(net.with_suffix(".json").read_text())
    keys = [where for name, where, _ in EVERY if name == family]
    codes: dict[str, int] = {}
    slowest = 0.0
    refusal(checkpoint.load(net), config={**SMALL[family], "w_dim": 16384})  # torch loads, once
    for _ in range(300):
        config, meta = SMALL[family], {}
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            config = with_value(config, rng.choice(keys), rng.choice(ODD_VALUES))
        for _ in range(rng.choice((0, 0, 1))):
            meta[rng.choice(ODD_META)] = rng.choice(ODD_VALUES)
        started = time.process_time()
        net.with_suffix(".json").write_text(json.dumps({**about, "config": config, "meta": meta}))
        try:
            registry.build(checkpoint.load(net))
            code = "sound"
        except BadCheckpoint as error:
            code = error.code
            assert len(str(error)) < 800
        except BadConfig:
            code = "config"
        except Exception as error:
            raise AssertionError(f"{config} {meta}"[:2000]) from error
        codes[code] = codes.get(code, 0) + 1
        slowest = max(slowest, time.process_time() - started)
    assert slowest < 2
    assert {"sound", "CKPT_BAD_CONFIG", "CKPT_ARCH_MISMATCH"} <= set(codes)


def test_weights_stored_in_half_precision_are_whole_again(tmp_path, state):
    half = [key for key in state if key.endswith("weight")]
    path = tmp_path / "net"
    checkpoint.save(path, family="stylegan2", config=CONFIG, state=state, half=half)
    found = checkpoint.load(path).state
    assert {x.dtype for x in found.values()} == {torch.float32}
    for key, value in state.items():
        expected = value.half().float() if key in half else value
        assert torch.equal(found[key], expected), key
    whole = tmp_path / "whole"
    checkpoint.save(whole, family="stylegan2", config=CONFIG, state=state)
    sizes = [p.with_suffix(".safetensors").stat().st_size for p in (path, whole)]
    assert sizes[0] < 0.7 * sizes[1]
    checkpoint.build(checkpoint.load(path))


def test_half_precision_is_refused_where_it_is_not_announced(tmp_path, state):
    path = tmp_path / "net"
    checkpoint.save(path, family="stylegan2", config=CONFIG, state=state, half=list(state)[:1])
    about = json.loads(path.with_suffix(".json").read_text())
    for stored, code in (("float32", "CKPT_ARCH_MISMATCH"), ("float8", "CKPT_CORRUPT")):
        changed = {**about, "tensors": {**about["tensors"], "stored": stored}}
        path.with_suffix(".json").write_text(json.dumps(changed))
        with pytest.raises(BadCheckpoint) as caught:
            checkpoint.build(checkpoint.load(path))
        assert caught.value.code == code


def test_what_half_precision_cannot_hold_is_not_written(tmp_path, state):
    key = next(key for key in state if key.endswith("weight"))
    for wrong in ({**state, key: state[key] * 1e6}, {**state, key: state[key].double()}):
        with pytest.raises(BadCheckpoint, match="float16"):
            checkpoint.save(
                tmp_path / "net", family="stylegan2", config=CONFIG, state=wrong, half=[key]
            )
    assert not list(tmp_path.iterdir())


def test_every_code_is_in_the_table():
    table = checkpoint.__doc__ or ""
    for path in ROOT.glob("models/**/*.py"):
        for code in re.findall(r'"(CKPT_[A-Z_]+)"', path.read_text()):
            assert code in table, f"{code} of {path.name} is not in the table"
