"""Converting published files: the pictures of the goldens, once, within limits, without a trace."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoint, convert_child, convert_file
from models.convert_file import ProcessLimits, cached
from models.errors import BadCheckpoint, ModelError
from models.pickle_import import convert

GOLDENS = Path(__file__).parents[1] / "goldens" / "pickles"
SOUND = ("pickle_t", "pickle_r", "pickle_sg2", "pickle_sg2_nested")
TINY = GOLDENS / "malicious_module_src.pkl"  # a sound network with hostile source text


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as data:
        return {
            key: torch.from_numpy(data[key])
            for key in data
            if data[key].dtype.kind == "f" and data[key].ndim
        }


# Pictures.


@pytest.mark.parametrize("name", SOUND)
def test_a_converted_file_makes_the_golden_pictures(name, tmp_path):
    golden = arrays(name)
    written = convert(GOLDENS / f"{name}.pkl", tmp_path / "net")
    generator = checkpoint.build(checkpoint.load(written))
    with torch.inference_mode():
        ws = generator.mapping(golden["z"], golden.get("c"), truncation_psi=0.8)
        image = generator.synthesis(ws, noise_mode="const")
    assert torch.allclose(ws, golden["ws"], atol=1e-5, rtol=1e-5)
    limit = 1e-4
    if "sg2" in name:
        limit += 1e-5 * golden["img"].abs().max().item()
    error = (image - golden["img"]).abs().max().item()
    assert error <= limit, f"{error:.2e}"


def test_a_converted_snapshot_makes_the_golden_pictures(tmp_path):
    golden = arrays("snapshot")
    generator = checkpoint.build(checkpoint.load(convert(GOLDENS / "snapshot.pkl", tmp_path / "v")))
    with torch.inference_mode():
        image = generator(
            golden["z"],
            torch.zeros(len(golden["z"]), 0),
            golden["t"],
            motion_z=golden["motion_z"],
        )
    expected = golden["img_fp32"]
    assert (image - expected).abs().max() <= 1.5e-3
    assert torch.linalg.norm(image - expected) <= 2e-4 * torch.linalg.norm(expected)


def test_what_was_converted_says_where_it_came_from(tmp_path):
    written = convert(GOLDENS / "pickle_t.pkl", tmp_path / "net")
    found = checkpoint.load(written)
    meta, network = found.meta, checkpoint.build(found)
    assert meta["source"] == "pickle_t.pkl" and len(meta["source_sha256"]) == 64
    assert meta["trained"] is True and "non-commercial" in meta["licence"]
    assert meta["parameters"] == sum(weight.numel() for weight in network.parameters())
    assert str(GOLDENS) not in written.read_text()  # no path of the machine


def test_progress_rises_to_the_end(tmp_path):
    told: list[tuple[str, float]] = []
    convert(TINY, tmp_path / "net", progress=lambda *stage: told.append(stage))
    assert [done for _, done in told] == sorted(done for _, done in told)
    assert told[0][0] == "reading" and told[-1] == ("done", 1.0)


# In a process of its own.


def test_a_refused_file_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in sorted(GOLDENS.glob("malicious_*.pkl")):
        if source == TINY:
            continue
        with pytest.raises(BadCheckpoint) as caught:
            convert(source, tmp_path / "a" / "net")
        assert caught.value.code == "CKPT_FORBIDDEN_GLOBAL"
    with pytest.raises(BadCheckpoint) as caught:
        convert_file.convert_file(source, tmp_path / "a" / "net")
    assert caught.value.code == "CKPT_FORBIDDEN_GLOBAL"
    assert not list(tmp_path.iterdir())  # neither a result nor a trace of what the file would do


def test_hostile_source_text_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = convert_file.convert_file(TINY, Path("b/c/net"))
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert names == ["b/c/net.json", "b/c/net.safetensors"]
    assert found.path == tmp_path / "b/c/net.json"
    assert found.family == "stylegan3" and found.config["img_resolution"] == 16
    assert {"RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE"} <= set(found.limited)
    checkpoint.build(checkpoint.load(found.path))


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (ProcessLimits(wall_s=0.02), "CKPT_TIMEOUT"),
        (ProcessLimits(cpu_s=0), "CKPT_TIMEOUT"),
        (ProcessLimits(spare_bytes=24 << 20), "CKPT_MEMORY"),
        (ProcessLimits(file_bytes=1000), "CKPT_TOO_BIG"),
    ],
)
def test_a_conversion_over_its_limits_is_stopped_and_cleared_away(limits, code, tmp_path):
    source = tmp_path / "many.pkl"
    source.write_bytes(b"\x80\x04" + b"}" * 990_000 + b".")  # 1 MB that unpacks to 70 MB
    with pytest.raises(BadCheckpoint) as caught:
        convert_file.convert_file(source, tmp_path / "out" / "net", limits=limits)
    assert caught.value.code == code
    assert [path.name for path in tmp_path.iterdir()] == ["many.pkl"]


def test_a_failure_of_ours_is_no_refusal_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(convert_file.sys, "executable", "/bin/false")
    with pytest.raises(ModelError, match="please report") as caught:
        convert_file.convert_file(TINY, tmp_path / "net")
    assert not isinstance(caught.value, BadCheckpoint)


# Once.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_converted_once_and_found_again_under_another_name(cache, tmp_path, monkeypatch):
    said: list[str] = []
    first = cached(TINY, say=said.append)
    assert cache in first.parents and first.stem == TINY.stem
    assert "converting it once" in said[0] and "converted to" in said[1]
    monkeypatch.setattr(convert_file, "convert_file", None)  # a second conversion would fail
    copy = tmp_path / "renamed.bin"
    copy.write_bytes(TINY.read_bytes())
    assert cached(copy, say=said.append) == first
    assert "using its conversion" in said[-1]
    assert checkpoint.load(first).meta["source"] == TINY.name


def test_a_changed_file_is_converted_anew(cache, tmp_path, monkeypatch):
    asked = []

    def record(source, out, **options):
        asked.append(out)
        raise BadCheckpoint("CKPT_CORRUPT", "as if")

    monkeypatch.setattr(convert_file, "convert_file", record)
    for content in (b"\x80\x04N.", b"\x80\x04\x88."):
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(BadCheckpoint):
            cached(tmp_path / "a.pkl")
    with pytest.raises(BadCheckpoint):
        cached(tmp_path / "a.pkl", which="G")
    assert len(set(asked)) == 3
    assert not cache.exists()


def test_a_name_of_any_kind_becomes_a_harmless_one(cache, tmp_path, monkeypatch):
    asked = []

    def record(source, out, **options):
        asked.append(out)
        raise BadCheckpoint("CKPT_CORRUPT", "as if")

    monkeypatch.setattr(convert_file, "convert_file", record)
    odd = tmp_path / ("..\u202e ;x" * 20)
    odd.write_bytes(b"\x80\x04N.")
    with pytest.raises(BadCheckpoint):
        cached(odd)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", asked[0].name)


def test_a_file_swapped_after_it_was_hashed_is_not_kept_under_the_old_hash(
    cache, tmp_path, monkeypatch
):
    source = tmp_path / "a.pkl"
    source.write_bytes(b"\x80\x04N.")
    real = convert_file.convert_file

    def swapped(path, out, **options):
        path.write_bytes(TINY.read_bytes())
        return real(path, out, **options)

    monkeypatch.setattr(convert_file, "convert_file", swapped)
    with pytest.raises(BadCheckpoint, match="replaced meanwhile") as caught:
        cached(source)
    assert caught.value.code == "CKPT_HASH_MISMATCH"
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none"):
        assert not convert_file.is_foreign(path)
        assert cached(path) == path


def test_a_file_over_the_limit_is_not_even_hashed(cache, tmp_path, monkeypatch):
    source = tmp_path / "a.pkl"
    source.write_bytes(b"\x80\x04N.")
    with source.open("r+b") as file:
        file.truncate(1 << 40)  # sparse: reading it would take for ever
    with pytest.raises(BadCheckpoint) as caught:
        cached(source)
    assert caught.value.code == "CKPT_TOO_BIG"


def test_the_child_may_write_the_sum_of_its_allowances(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(convert_child, "confine", lambda *limits: asked.append(limits) or [])
    source = tmp_path / "a.pkl"
    source.touch()
    os.truncate(source, 16 << 20)  # four times this is 64 MiB, one bit
    arguments = [str(source), str(tmp_path / "net"), "G_ema", str(1 << 30), "60", "1000"]
    assert convert_child.main(arguments) == convert_child.REFUSED
    assert asked == [(60, 1000 + (64 << 20), 128 << 20)]


def test_other_files_are_left_as_they_are(cache, tmp_path):
    other = tmp_path / "net.json"
    other.write_text(json.dumps({}))
    assert cached(other) == other
    assert cached(tmp_path / "none") == tmp_path / "none"
    assert not cache.exists()
