"""`stylewire doctor`: what this machine has, what is missing, and how fast each model is here.

Collecting and printing are apart: `examine` gives plain data, `table` shows it to people.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from models.errors import ModelError
from realtime import backends
from realtime.clock import NS
from realtime.config import RenderConfig
from realtime.engine import Engine
from realtime.errors import RealtimeError
from realtime.messages import Look, RenderRequest, Tick

MEASURE_S = 1.0
LEAST_FRAMES = 5
RESOLUTION = 256
CAMERA_TIMEOUT_S = 8.0
_SESSION = "doctor"
# In a process of its own: a driver that hangs is killed with it.
_CAMERA_PROBE = """
import sys, cv2
camera = cv2.VideoCapture(int(sys.argv[1]))
good, picture = camera.read() if camera.isOpened() else (False, None)
print("%dx%d" % (picture.shape[1], picture.shape[0]) if good else "")
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    ok: bool
    detail: str  # what was found, or what is missing and how to get it
    essential: bool = False  # without it nothing streams


@dataclass(frozen=True)
class Measurement:
    """How fast one model draws here, into I420 at RESOLUTION, without encoding."""

    model: str
    ok: bool
    detail: str
    trained: bool = False
    frames: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    fps: float = 0.0  # 1 / p50: what it could reach
    backend: str = ""  # what drew it, after any fall-back


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found."""

    findings: list[Finding]
    models: list[Measurement]

    @property
    def well(self) -> bool:
        """Whether a stream can be served."""
        return all(f.ok for f in self.findings if f.essential) and any(m.ok for m in self.models)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "well": self.well}


async def examine(
    config: RenderConfig | None = None,
    *,
    engine: Engine | None = None,
    seconds: float = MEASURE_S,
    say: Callable[[str], None] = lambda stage: None,
) -> Diagnosis:
    """Look at everything, then draw with each shipped model.

    Args:
        engine: An open one to measure with; else one is made from `config`.
        seconds: Drawing time per model.
        say: Told what is being done.
    """
    findings = [_python(), _torch(), _triton(), _gpu(), *_packages()]
    say("encoders")
    findings += await asyncio.to_thread(_encoders)
    say("camera")
    findings.append(await asyncio.to_thread(camera))
    asked = config or RenderConfig()
    options = backends.report(asked.device, asked.precision)
    findings += [Finding(f"backend {o.name}", o.available, o.why) for o in options]
    if engine is not None:
        return Diagnosis(findings, await _measure_all(engine, seconds, say))
    try:
        async with Engine(config or RenderConfig()) as own:
            return Diagnosis(findings, await _measure_all(own, seconds, say))
    except RealtimeError as error:
        findings.append(Finding("engine", False, str(error), essential=True))
        return Diagnosis(findings, [])


async def _measure_all(
    engine: Engine, seconds: float, say: Callable[[str], None]
) -> list[Measurement]:
    measured = []
    for model in engine.models():
        say(f"model {model}")
        measured.append(await measure(engine, model, seconds))
    return measured


async def measure(engine: Engine, model: str, seconds: float = MEASURE_S) -> Measurement:
    """Draw with `model` for `seconds` after its warm-up. A model that fails is a finding."""
    try:
        info = await engine.load(model, RESOLUTION)
        await engine.open(_SESSION, RESOLUTION)
        times = await _draw(engine, model, seconds)
    except (ModelError, RealtimeError) as error:
        return Measurement(model, False, str(error))
    finally:
        await engine.close(_SESSION)
    p50, p95 = statistics.median(times), times[int(0.95 * (len(times) - 1))]
    detail = f"{info.parameters / 1e6:.1f} M parameters" if info.parameters else "no network"
    times_ms = (len(times), round(p50, 3), round(p95, 3), 1000 / p50)
    return Measurement(model, True, detail, info.trained, *times_ms, info.backend)


async def _draw(engine: Engine, model: str, seconds: float) -> list[float]:
    """Milliseconds of each frame, sorted; motion advances as at 30 frames/s."""
    times: list[float] = []
    look, begin = Look(model=model, resolution=RESOLUTION), time.monotonic_ns()
    while len(times) < LEAST_FRAMES or time.monotonic_ns() - begin < seconds * NS:
        k, now = len(times), time.monotonic_ns()
        tick = Tick(k, k / 30, k * 3000, now)
        frame = await engine.render(RenderRequest(_SESSION, tick, look, k / 30))
        times.append((frame.stamps["rendered"] - frame.stamps["sampled"]) / 1e6)
        frame.release()
    return sorted(times)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", good, detail if good else f"{detail}; 3.11 is needed", essential=True)


def _torch() -> Finding:
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", True, f"{torch.__version__}, {cuda}", essential=True)


def _triton() -> Finding:
    try:
        return Finding("triton", True, importlib.metadata.version("triton"))
    except importlib.metadata.PackageNotFoundError:
        return Finding("triton", False, "not installed; only CUDA uses it: pip install triton")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", False, "torch finds no CUDA device; models are drawn on the CPU")
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Finding("gpu", True, f"{torch.cuda.get_device_name()}, {memory:.0f} GiB")


def _packages() -> list[Finding]:
    found = []
    for name in ("av", "aiortc", "aiohttp", "numba"):
        try:
            found.append(Finding(name, True, importlib.metadata.version(name), essential=True))
        except importlib.metadata.PackageNotFoundError:
            advice = f"not installed: pip install {name}"
            found.append(Finding(name, False, advice, essential=True))
    return found


def _encoders() -> list[Finding]:
    """Each codec opened for real; one is enough to stream."""
    from realtime import encoder  # loads the codecs' libraries

    reports = encoder.available()
    some = any(report.ok for report in reports.values())
    return [
        Finding(f"encoder {name}", report.ok, report.detail, essential=not some)
        for name, report in reports.items()
    ]


def camera(devices: Path = Path("/dev"), timeout_s: float = CAMERA_TIMEOUT_S) -> Finding:
    """Whether a first camera gives a picture. None is fine: nothing here needs one yet."""
    found = sorted(devices.glob("video*"))
    if sys.platform.startswith("linux") and not found:
        return Finding("camera", False, "none found; only driving a face by camera will need one")
    index = found[0].name.removeprefix("video") if found else "0"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _CAMERA_PROBE, index],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("camera", False, f"camera {index} gave no picture in {timeout_s:g} s")
    size = probe.stdout.strip()
    if not size:
        return Finding("camera", False, f"camera {index} is there but gives no picture")
    return Finding("camera", True, f"camera {index}, {size}")


def table(diagnosis: Diagnosis) -> list[Table]:
    """The same for people: what there is, then how fast it is."""
    first = Table("", "", "", title="This machine", title_justify="left", show_header=False)
    for finding in diagnosis.findings:
        mark = "ok" if finding.ok else "MISSING" if finding.essential else "-"
        first.add_row(mark, finding.name, finding.detail)
    title = f"Models at {RESOLUTION} px, drawing without encoding"
    second = Table("model", "fps", "p50 ms", "p95 ms", "drawn by", "weights", title=title)
    second.title_justify = "left"
    for m in diagnosis.models:
        if m.ok:
            weights = "trained" if m.trained else "seeded, not trained"
            weights = weights if m.detail != "no network" else m.detail
            times = (f"{m.fps:.0f}", f"{m.p50_ms:.1f}", f"{m.p95_ms:.1f}")
            second.add_row(m.model, *times, m.backend, weights)
        else:
            second.add_row(m.model, "-", "-", "-", "-", m.detail)
    return [first, second]
