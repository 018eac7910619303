"""Settings of a run: strict, printable, and comparable."""

from __future__ import annotations

import math
import tomllib

import pytest

from models.errors import BadConfig
from models.training import config as config_module
from models.training.config import OptimConfig, TrainConfig, load

LEAST = """
system = "stylegan_v"
[data]
source = "clips"
resolution = 64
[run]
total_kimg = 2
[generator]
cfg = { motion = { distance = 16.5 }, names = ["a\\n", "\\u00e4"] }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(LEAST)
    return path


def test_what_is_not_said_has_defaults(file):
    found = load(file)
    assert found.batch.size == 16 and found.optim.lr == 0.0025 and found.seed == 0
    assert found.run.total_kimg == 2.0 and isinstance(found.run.total_kimg, float)
    assert found.own["generator"]["cfg"]["motion"] == {"distance": 16.5}
    assert found.images_per_step == 48 and found.total_steps == math.ceil(2000 / 48)
    assert found.batch.micros == 2 and found.data.parts == (("clips", 1.0),)


def test_a_written_configuration_reads_back_as_itself(file):
    mixed = 'data.source=[["heads:cast", 0.7], ["heads:narrow", 0.3]]'
    for changes in ([], [mixed, "run.tick_kimg=0.25", "optim.r1_gamma=2", "data.facekit=x.npz"]):
        found = load(file, changes)
        again = TrainConfig.from_dict(tomllib.loads(found.to_toml()))
        assert again == found and again.sha == found.sha


def test_changes_are_toml_or_words(file):
    found = load(file, ["seed=5", "run.precision=bf16", 'data.source="a b"', "data.mirror=true"])
    assert (found.seed, found.run.precision) == (5, "bf16")
    assert found.data.source == "a b" and found.data.mirror is True
    assert load(file, ["generator.w_dim=32"]).own["generator"]["w_dim"] == 32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sead=1", "no 'sead'; known are system"),
        ("batch.sise=4", "config.batch has no 'sise'; known are frames, micro, size"),
        ("batch.size=4.5", "config.batch.size is 4.5, not a whole number"),
        ("batch.size=true", "not a whole number"),
        ("batch.micro=5", "must divide size, 16"),
        ("data.resolution=48", "power of two"),
        ("data.mirror=1", "not true or false"),
        ("run.total_kimg=0", "must be above 0"),
        ("run.total_kimg=nan", "must be finite"),
        ("run.precision=half", "known are fp32, bf16 and fp16"),
        ("run.keep_states=1", "below 2"),
        ("optim.schedule=linear", "known are constant and cosine"),
        ("optim.augment=bg", "known are bgc and none"),
        ("optim.r1_gamma=much", 'a number or "auto"'),
        ("optim.beta1=1", "from 0 to below 1"),
        ('data.source=[["a", 0.5], ["b", 0.4]]', "sum to 1"),
        ("data.source=[]", "names nothing"),
        ("data.source=7", "config.data.source"),
        ("generator=3", "generator is 3, not a table"),
        ("seed.x=3", "sections|not a table|whole number"),
        ("seed", "not section.key=value"),
        ("seed=-1", "0 to 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name(file, change, said):
    with pytest.raises(BadConfig, match=said):
        load(file, [change])


def test_missing_settings_are_named(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('system = "a"\n[run]\ntotal_kimg = 1\n')
    with pytest.raises(BadConfig, match="config.data is missing"):
        load(path)


def test_a_name_that_is_neither_file_nor_shipped_is_answered_with_the_shipped_ones():
    with pytest.raises(BadConfig, match="shipped are .*tiny"):
        load("no-such")


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    for content in (b"[[[", b"\xff\xfe"):
        path = tmp_path / "x.toml"
        path.write_bytes(content)
        with pytest.raises(BadConfig, match="not TOML"):
            load(path)


def test_every_shipped_configuration_is_one():
    assert {"tiny", "clips_128", "heads_64", "stylegan_v_256"} <= set(config_module.shipped())
    for name in config_module.shipped():
        assert load(name).total_steps > 0


def test_only_what_changes_no_number_may_differ_on_resuming(file):
    base = load(file).bound
    free = ["run.total_kimg=9", "run.tick_s=1", "data.workers=0", "run.snapshot_s=5"]
    assert load(file, free).bound == base
    for change in ("seed=1", "optim.lr=0.1", "run.precision=bf16", "batch.micro=4"):
        assert load(file, [change]).bound != base


def test_rates_follow_their_schedule():
    flat = OptimConfig(warmup_steps=10)
    assert flat.rate(1.0, 0, 100) == pytest.approx(0.1) and flat.rate(1.0, 50, 100) == 1.0
    cosine = OptimConfig(lr=1.0, lr_end=0.1, schedule="cosine")
    assert cosine.rate(1.0, 0, 100) == 1.0
    assert cosine.rate(1.0, 50, 100) == pytest.approx(0.55)
    assert cosine.rate(1.0, 100, 100) == pytest.approx(0.1)
    assert cosine.rate(2.0, 100, 100) == pytest.approx(0.2)


def test_who_trains_a_system_is_known_by_name():
    import torch

    from models.registry import TRAINERS, build_trainer
    from models.training.contracts import DataInfo

    assert {"stylegan_v", "stylegan_v_fit"} <= set(TRAINERS)
    tiny = load("tiny")
    made = build_trainer(tiny, DataInfo("clips", 16, 25.0), torch.device("cpu"))
    assert set(made.networks) == {"G", "D"} and {p.network for p in made.phases} == {"G", "D"}
    with pytest.raises(BadConfig, match="nothing trains 'x'; known are stylegan_v"):
        build_trainer(load("tiny", ["system=x"]), DataInfo("clips", 16, 25.0), torch.device("cpu"))
