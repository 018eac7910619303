"""Discriminators against stored logits and gradients."""

from __future__ import annotations

import pytest
import torch

import kernels_triton as ops
from models.backbones.discriminator import Discriminator

GOLDENS = "stylegan2/disc_*.npz"


@pytest.mark.parametrize("implementation", ops.IMPLEMENTATIONS)
def test_logits_and_their_gradient(golden_file, implementation, assert_close) -> None:
    net = Discriminator(**golden_file.meta["init"])
    net.load_state_dict(golden_file.tensors("sd/"), strict=True)
    stored = golden_file.tensors("run0/")

    with ops.implementation(implementation):
        with torch.no_grad():
            logits = net(stored["img"], stored.get("c"))
        img = stored["img"].requires_grad_(True)
        (gradient,) = torch.autograd.grad(net(img, stored.get("c")).sum(), img)

    assert_close(logits, stored["logits"], 2e-5, 2e-5, "logits")
    assert_close(gradient, stored["dimg"], 2e-4, 2e-4, "dimg")
    # That bound is wide for gradients this small: they agree to rounding.
    assert_close(gradient, stored["dimg"], 0, 1e-4, "dimg")
