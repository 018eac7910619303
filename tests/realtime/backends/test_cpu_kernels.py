"""Kernels compiled in a child process: once, for good, and never at the cost of a stream."""

from __future__ import annotations

import subprocess

import pytest
import torch

from kernels_triton.filtered_lrelu import Resampling
from realtime.backends import cpu_kernels


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "kernels"
    folder.mkdir()
    monkeypatch.setattr(cpu_kernels, "cache_folder", lambda: folder)
    return folder


def resampling() -> Resampling:
    """One that no shipped network has, so that nobody has compiled it yet: four taps down."""
    fu, fd = torch.tensor([0.1, 0.2, 0.7] * 4), torch.tensor([0.1, 0.4, 0.4, 0.1])
    return Resampling.of(fu, fd, up=2, pad=5)


def test_the_child_compiles_and_the_next_start_asks_no_child(cache, monkeypatch, caplog) -> None:
    asked = []
    run = subprocess.run

    def counted(*arguments, **options):
        asked.append(options["input"])
        return run(*arguments, **options)

    monkeypatch.setattr(cpu_kernels.subprocess, "run", counted)
    for _ in range(2):
        cpu_kernels.compile_beside([resampling(), resampling()], torch.float32)
    assert len(asked) == 1 and asked[0].count("up_taps") == 1
    assert [path.name[:9] for path in cache.iterdir()] == ["compiled_"]
    assert "once" in caplog.text
    cpu_kernels.compile_beside([], torch.bfloat16)  # another specification, another child
    assert len(asked) == 2


def test_a_child_that_fails_is_said_and_asked_again(cache, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cpu_kernels.sys, "executable", "/bin/false")
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert "no kernels were compiled" in caplog.text
    monkeypatch.setattr(cpu_kernels.sys, "executable", "/no/such/file")
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert "FileNotFoundError" in caplog.text
    assert list(cache.iterdir()) == []


def test_without_a_lasting_cache_no_child_is_asked(monkeypatch, tmp_path) -> None:
    """A child would compile into a folder of its own, and all of it again here."""
    monkeypatch.setattr(cpu_kernels.tempfile, "gettempdir", lambda: str(tmp_path))
    private = tmp_path / "stylewire-kernels-x"
    private.mkdir()
    monkeypatch.setattr(cpu_kernels, "cache_folder", lambda: private)
    monkeypatch.setattr(cpu_kernels.subprocess, "run", lambda *a, **k: pytest.fail("a child"))
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert not private.exists()
