"""States of a run: whole or refused, whatever happened while they were written."""

from __future__ import annotations

import errno
import json
import os

import pytest
import safetensors.torch
import torch

from models.errors import BadCheckpoint
from models.training import run_state
from models.training.run_state import Progress

from .tiny import Painting, config


def trained(steps: int = 2) -> Painting:
    trainer = Painting(config())
    for parameter in (p for n in trainer.networks.values() for p in n.parameters()):
        parameter.grad = torch.ones_like(parameter)
    for _ in range(steps):
        for optimizer in trainer.optimizers.values():
            optimizer.step()
    trainer.p += 0.25
    return trainer


def saved(folder, step: int, trainer: Painting | None = None, **settings):
    return run_state.save(
        folder, trainer or trained(), Progress(step, step * 16, 1.5), {"note": "x"}, **settings
    )


def test_what_is_written_is_safetensors_and_reads_back_as_itself(tmp_path):
    trainer = trained()
    path = saved(tmp_path, 7, trainer)
    progress, about, tensors = run_state.load(tmp_path)
    assert progress == Progress(7, 112, 1.5) and about["note"] == "x"
    wanted = run_state.collect(trainer)
    plain = safetensors.torch.load_file(path.with_suffix(".safetensors"))
    assert plain.keys() == tensors.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert tensor.dtype == plain[key].dtype
        assert torch.equal(tensor, plain[key]) and torch.equal(tensor, tensors[key])
    other = Painting(config())
    run_state.restore(other, tensors)
    for key, tensor in run_state.collect(other).items():
        assert torch.equal(tensor, wanted[key]), key


def test_two_are_kept_and_no_litter(tmp_path):
    for step in (1, 2, 3, 10):
        saved(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"state-{step:08d}{suffix}" for step in (3, 10) for suffix in (".json", ".safetensors")
    ]


def test_the_newest_whole_pair_is_taken(tmp_path):
    saved(tmp_path, 1)
    path = saved(tmp_path, 2).with_suffix(".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run_state.load(tmp_path)[0].step == 1
    path.unlink()
    assert run_state.load(tmp_path)[0].step == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "stylewire-run", "version": 1}'])
def test_damaged_jsons_fall_back_and_are_named_if_nothing_is_left(tmp_path, text):
    saved(tmp_path, 1)
    saved(tmp_path, 2).write_text(text)
    assert run_state.load(tmp_path)[0].step == 1
    (tmp_path / "state-00000001.json").write_text(text)
    with pytest.raises(BadCheckpoint, match="state-00000002.json"):
        run_state.load(tmp_path)


def test_no_state_is_none(tmp_path):
    assert run_state.load(tmp_path) is None
    (tmp_path / "state-x.json").write_text("{}")
    assert run_state.load(tmp_path) is None


def test_a_kill_between_tensors_and_json_leaves_the_older_pair(tmp_path):
    """What is on the disk then: tensors in place, no JSON, a part."""
    saved(tmp_path, 1)
    newer = saved(tmp_path, 2)
    newer.rename(tmp_path / ".state-00000002.json.part")
    assert run_state.load(tmp_path)[0].step == 1
    saved(tmp_path, 5)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"state-{s:08d}{x}" for s in (1, 5) for x in (".json", ".safetensors")}


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    before = sorted(p.name for p in tmp_path.iterdir())

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        saved(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert run_state.load(tmp_path)[0].step == 1


def test_a_state_with_a_nan_is_never_written(tmp_path):
    trainer = trained()
    with torch.no_grad():
        trainer.averages["paint"][0].bias[0] = float("inf")
    with pytest.raises(BadCheckpoint, match="ema/paint/0.bias"):
        saved(tmp_path, 1, trainer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("net/paint/0.weight", "net/paint"),
        ("ema/paint/0.bias", "ema/paint"),
    ],
)
def test_tensors_that_are_missing_are_named(key, said):
    state = {k: v.clone() for k, v in run_state.collect(trained()).items()}
    del state[key]
    with pytest.raises(BadCheckpoint, match=said):
        run_state.restore(Painting(config()), state)


@pytest.mark.parametrize("key", ["opt/paint/9.weight/exp_avg", "net/other/x", "x/y/z"])
def test_tensors_that_nothing_takes_are_named(key):
    state = dict(run_state.collect(trained()))
    state[key] = torch.zeros(1)
    with pytest.raises(BadCheckpoint, match="CKPT_ARCH_MISMATCH"):
        run_state.restore(Painting(config()), state)


def test_equal_states_are_equal_files(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    hashes = {json.loads(saved(f, 3).read_text())["tensors"]["sha256"] for f in (one, two)}
    assert len(hashes) == 1
