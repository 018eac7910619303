"""From a name or a file to a system; and saying what is known."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
import torch

import models
from models import checkpoint, registry
from models.backbones import stylegan2
from models.errors import BadCheckpoint, BadConfig, ModelError
from models.stylegan import System

CONFIG = {
    "z_dim": 8,
    "c_dim": 0,
    "w_dim": 8,
    "img_resolution": 8,
    "img_channels": 3,
    "channel_base": 64,
    "channel_max": 8,
}


def small() -> stylegan2.Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return stylegan2.Generator(**CONFIG)


@pytest.fixture
def shipped(monkeypatch):
    """Two shipped models that are quick to make."""
    shipped = types.ModuleType("models.shipped")
    shipped.MODELS = {
        "first": lambda: System("first", small(), trained=False),
        "second": lambda: System("second", small(), trained=False, walk_speed=0.1),
    }
    shipped.DEFAULT = "first"
    monkeypatch.setitem(sys.modules, "models.shipped", shipped)
    monkeypatch.setattr(models, "shipped", shipped, raising=False)


@pytest.fixture
def saved(tmp_path):
    meta = {"trained": False, "walk_speed": 2.0}
    return checkpoint.save(
        tmp_path / "mine", family="stylegan2", config=CONFIG, state=small().state_dict(), meta=meta
    )


def test_a_shipped_name_is_made(shipped):
    assert registry.names() == ["first", "second"]
    assert registry.load_model("second").name == "second"
    assert registry.load_model("default").name == "first"


def test_a_checkpoint_is_loaded_by_any_of_its_paths(shipped, saved):
    direct = System("x", small(), trained=False, walk_speed=2.0)
    expected = direct.synthesizer(direct.identity(seed=1), direct.motion(seed=1).sample(0.4))
    for path in (saved, saved.with_suffix(".safetensors"), saved.with_suffix("")):
        system = registry.load_model(str(path))
        assert (system.name, system.trained) == ("mine", False)
        image = system.synthesizer(system.identity(seed=1), system.motion(seed=1).sample(0.4))
        assert torch.equal(image, expected)


def test_a_file_in_the_current_folder_needs_no_folder(shipped, saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert registry.load_model("mine").name == "mine"


def test_an_unknown_name_says_what_is_known(shipped):
    with pytest.raises(ModelError, match="'frist'; shipped are first, second"):
        registry.load_model("frist")


@pytest.mark.parametrize("path", ["nowhere/model", "model.json", "model.safetensors"])
def test_a_missing_file_is_reported_as_a_file(shipped, path):
    with pytest.raises(BadCheckpoint) as refused:
        registry.load_model(path)
    assert refused.value.code == "CKPT_NOT_FOUND"


def test_a_family_without_a_system_says_what_is_known():
    unknown = checkpoint.Checkpoint("stylegan9", {}, {}, {})
    with pytest.raises(BadConfig, match=r"stylegan9.*stylegan2, stylegan3, stylegan_v"):
        registry.build(unknown)


@pytest.mark.parametrize(
    ("meta", "trained"), [({}, True), ({"trained": True}, True), ({"trained": False}, False)]
)
def test_only_what_says_so_counts_as_untrained(meta, trained):
    made = checkpoint.Checkpoint("stylegan2", CONFIG, small().state_dict(), meta)
    assert registry.build(made).trained is trained


def test_a_hostile_setting_in_a_file_is_refused():
    for meta in ({"walk_radius": "1e9"}, {"walk_loop": [4]}, {"walk_speed": None}):
        made = checkpoint.Checkpoint("stylegan2", CONFIG, small().state_dict(), meta)
        with pytest.raises(BadConfig, match=next(iter(meta)).removeprefix("walk_")):
            registry.build(made)


def test_knowing_of_a_system_imports_none():
    code = (
        "import sys, models.registry as r;"
        "known = {*r.SYSTEMS.values(), *r.TRAINERS.values(), 'models.seeded', 'models.shipped'};"
        "print([m for m in known if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
