"""The doctor: true findings, measured models, nothing that hangs."""

import io
import json

import pytest
from rich.console import Console

from models.errors import ModelError
from realtime import doctor
from realtime.config import RenderConfig
from realtime.doctor import Diagnosis, Finding, Measurement, camera, examine, measure, table
from realtime.engine import Engine
from tests.realtime.tiny_system import TinySystem


def engine_of(*systems):
    known = {system.name: system for system in systems}

    def load(name):
        if name not in known:
            raise ModelError(f"no model is called {name!r}.")
        return known[name]

    return Engine(RenderConfig(model=systems[0].name), load=load, names=list(known))


async def test_everything_is_examined_and_this_machine_is_well():
    said = []
    async with engine_of(TinySystem()) as engine:
        found = await examine(engine=engine, seconds=0.05, say=said.append)
        assert engine.stats()["sessions"] == 0
    names = [finding.name for finding in found.findings]
    for name in ("python", "torch", "triton", "gpu", "camera", "encoder H264", "backend cpu"):
        assert name in names
    assert found.well
    assert [(m.model, m.ok) for m in found.models] == [("tiny", True), ("testcard", True)]
    assert said[-1] == "model testcard"
    assert json.loads(json.dumps(found.as_dict()))["well"] is True
    console = Console(width=120, record=True, file=io.StringIO())
    for part in table(found):
        console.print(part)
    text = console.export_text()
    assert "tiny" in text and "seeded, not trained" in text and "no network" in text


async def test_the_measured_rate_is_the_models_own():
    system = TinySystem()
    async with engine_of(system) as engine:
        await engine.load("tiny", 256)
        system.synthesizer.delay_s = 0.02
        found = await measure(engine, "tiny", seconds=0.2)
    assert found.ok and not found.trained
    assert 20 <= found.p50_ms < 60 and found.p50_ms <= found.p95_ms
    assert found.fps == pytest.approx(1000 / found.p50_ms, rel=0.01)
    assert found.frames >= doctor.LEAST_FRAMES


async def test_a_slow_model_is_measured_by_a_few_frames():
    async with engine_of(TinySystem()) as engine:
        assert (await measure(engine, "tiny", seconds=0)).frames == doctor.LEAST_FRAMES


async def test_a_model_that_fails_is_a_finding_and_not_an_error():
    broken = TinySystem("broken")
    broken.synthesizer.break_next = 10**9
    async with engine_of(broken) as engine:
        found = await measure(engine, "broken", seconds=0.05)
        missing = await measure(engine, "nobody", seconds=0.05)
    assert not found.ok and "NaN" in found.detail
    assert not missing.ok and "no model" in missing.detail


async def test_a_backend_that_cannot_run_is_essential_and_told():
    found = await examine(RenderConfig(model="testcard", backend="tensorrt"), seconds=0)
    engine = found.findings[-1]
    assert (engine.name, engine.ok, engine.essential) == ("engine", False, True)
    assert "tensorrt" in engine.detail and not found.well


def test_only_what_is_essential_makes_a_machine_ill():
    drawn = Measurement("m", True, "")
    optional = [Finding("camera", False, "none"), Finding("python", True, "", essential=True)]
    assert Diagnosis(optional, [drawn]).well
    assert not Diagnosis([Finding("av", False, "gone", essential=True)], [drawn]).well
    assert not Diagnosis(optional, [Measurement("m", False, "broken")]).well


def test_no_camera_is_fine_and_costs_nothing(tmp_path):
    found = camera(tmp_path)
    assert not found.ok and not found.essential and "none found" in found.detail


def test_a_camera_that_gives_nothing_or_hangs_is_told(tmp_path, monkeypatch):
    (tmp_path / "video97").touch()
    assert "no picture" in camera(tmp_path, timeout_s=60).detail
    monkeypatch.setattr(doctor, "_CAMERA_PROBE", "import time; time.sleep(60)")
    assert "no picture in 0.5 s" in camera(tmp_path, timeout_s=0.5).detail
    monkeypatch.setattr(doctor, "_CAMERA_PROBE", "print('640x480')")
    found = camera(tmp_path, timeout_s=60)
    assert found.ok and found.detail == "camera 97, 640x480"
