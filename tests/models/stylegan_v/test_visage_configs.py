"""The stages of the embedded default: one network throughout, ever larger pictures."""

from __future__ import annotations

import pytest
import torch

from models import registry
from models.presets import VISAGE
from models.stylegan_v.fit import Fit
from models.stylegan_v.settings import generator_arguments
from models.training import config
from models.training.contracts import DataInfo

STAGES = ["visage_a", "visage_b", "visage_c"]


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_the_preset_s_generator(name):
    found = config.load(name)
    assert generator_arguments(found, DataInfo("heads", found.data.resolution, 25.0)) == VISAGE
    assert found.data.parts == (("heads:cast", 0.7), ("heads:narrow", 0.3))


def test_pictures_grow_to_full_size():
    sizes = [config.load(name).data.resolution for name in STAGES]
    assert sizes == [64, 128, 256] and sizes[-1] == VISAGE["img_resolution"]


def test_the_registry_makes_its_trainer_within_four_megabytes():
    found = config.load("visage_a")
    trainer = registry.build_trainer(found, DataInfo("heads", 64, 25.0), torch.device("cpu"))
    assert isinstance(trainer, Fit)
    numbers = sum(p.numel() for p in trainer.generator.parameters())
    assert 1_600_000 < numbers < 1_980_000
    assert trainer.learning_rate("G", 0) < trainer.learning_rate("G", 199)
    assert trainer.learning_rate("G", found.total_steps) == pytest.approx(1e-3)
