"""The published configuration, read strictly where it matters and leniently where it is noise."""

from __future__ import annotations

import pytest

from models.errors import BadConfig
from models.stylegan_v.config import DiscriminatorConfig, GeneratorConfig


def test_defaults_are_the_shipped_configuration():
    config = GeneratorConfig.from_published({})
    assert config.motion.distance == 16 and config.motion.reach == 20
    assert config.motion.embedding_dim == 512 and config.fps == 25
    assert DiscriminatorConfig.from_published({}).differences == 2


def test_unknown_and_dead_keys_are_left_alone():
    cfg = {"source": "networks", "time_enc": {"phase_dropout_std": 1.0}, "hyper_type": None}
    assert GeneratorConfig.from_published(cfg) == GeneratorConfig()


def test_code_distance_is_the_shortest_period_unless_said():
    sky = GeneratorConfig.from_published({"time_enc": {"min_period_len": 256}})
    assert sky.motion.distance == 256
    odd = {"time_enc": {"min_period_len": 12}, "motion": {"motion_z_distance": 10}}
    assert GeneratorConfig.from_published(odd).motion.distance == 10


def test_rate_comes_from_our_key_then_from_the_data_set():
    assert GeneratorConfig.from_published({"sampling": {"fps": 30}}).fps == 30
    assert GeneratorConfig.from_published({"fps": 24, "sampling": {"fps": 30}}).fps == 24


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"motion": {"motion_z_distance": "${model.generator.x}"}}, "resolve it on conversion"),
        ({"sampling": "${sampling}"}, "resolve it on conversion"),
        ({"motion": {"fourier": False}}, "fourier"),
        ({"motion": {"z_dim": 8.5}}, "whole number"),
        ({"motion": {"z_dim": True}}, "z_dim is True"),
        ({"motion": {"gen_strategy": 3}}, "gen_strategy is 3"),
        ({"motion": {"gen_strategy": "autoregressive", "v_dim": 8}}, "v_dim"),
        ({"time_enc": {"cond_type": "both"}}, "cond_type"),
        ({"input": {"type": "noise"}}, "input.type"),
        ({"fps": 0}, "fps is 0"),
    ],
)
def test_what_cannot_be_built_is_named(cfg, message):
    with pytest.raises(BadConfig, match=message):
        GeneratorConfig.from_published(cfg)
