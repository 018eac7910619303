"""The published StyleGAN3 code as a baseline, from a checkout the user names (`--against DIR`).

Its Python runs in this process, so name only a checkout that you trust; nothing of it is kept. It
gets our weights, and its pictures must be ours before it is timed. On CUDA its own extensions are
built if a compiler is there (minutes, once); on a CPU, or where that fails, it takes the plain path
that it brings along, and the row says so.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench import systems
from bench.fidelity import Truth, full_precision, gate, placed, psnr
from bench.graphs import Capture, captured
from bench.subjects import Absent, Baseline, codes, graphed

NETWORKS = {
    "stylegan2": "training.networks_stylegan2",
    "stylegan3": "training.networks_stylegan3",
}
PACKAGES = ("training", "torch_utils", "dnnlib")
OPS = ("filtered_lrelu", "upfirdn2d", "bias_act")


def _pkg_resources() -> ModuleType:
    """It is asked for one function, and setuptools no longer brings it."""
    from packaging.version import parse

    module = ModuleType("pkg_resources")
    module.parse_version = parse  # type: ignore[attr-defined]
    return module


# Modules that it imports and that a machine may lack: what stands in for them while it is imported.
STAND_INS: dict[str, Callable[[], ModuleType]] = {
    "pkg_resources": _pkg_resources,
    "requests": lambda: ModuleType("requests"),  # for downloads, which nothing here asks for
}


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """`folder` first on the path, stand-ins for what is missing; both gone afterwards."""
    missing = []
    for name, make in STAND_INS.items():
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
            sys.modules[name] = make()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in missing:
            sys.modules.pop(name, None)


def networks(folder: str | Path, family: str) -> ModuleType:
    """The module of the checkout that holds the family's `Generator`.

    Raises:
        Absent: It is no such checkout, lacks something, or has no such family.
    """
    place = Path(folder).resolve()
    if family not in NETWORKS:
        raise Absent(f"the published code has no {family}; it has {', '.join(NETWORKS)}")
    if not (place / "torch_utils" / "ops" / "filtered_lrelu.py").is_file():
        raise Absent(f"{Path(folder).name} is no checkout of the published StyleGAN3 code")
    for name in PACKAGES:
        loaded = getattr(sys.modules.get(name), "__path__", None)
        if loaded is not None and place not in Path(next(iter(loaded))).resolve().parents:
            raise Absent(f"another package called {name} is already imported")
    with _importable(place):
        try:
            return importlib.import_module(NETWORKS[family])
        except ImportError as error:
            raise Absent(f"the published code needs {error.name}: install it") from error


def extensions(folder: str | Path, device: torch.device) -> str:
    """Build its CUDA extensions, or turn them off. Returns what became of them, for people."""
    with _importable(Path(folder).resolve()):
        ops: list[Any] = [importlib.import_module(f"torch_utils.ops.{name}") for name in OPS]
        tools: Any = importlib.import_module("torch_utils.custom_ops")
    tools.verbosity = "none"
    why = "no CUDA"
    if device.type == "cuda":
        try:
            for op in ops:
                op._init()
            return "its CUDA extensions"
        except Exception as error:  # whatever a compiler run may raise
            why = f"{type(error).__name__} while building: {str(error).splitlines()[0][:120]}"
    for op in ops:
        op._init = lambda: False
    return f"its plain path ({why})"


@dataclass(frozen=True)
class Published:
    """One system drawn by the published code.

    Args:
        forward: (identity, motion) on the device to a picture, as published.
        way: What its operators run as.
    """

    forward: Callable[[Any, Any], Any]
    way: str
    psnr: float
    system: Any
    device: torch.device

    def eager(self) -> Baseline:
        """Forward after forward."""
        following = codes(self.system, self.device)
        frame = _no_gradients(lambda: self.forward(*next(following)))
        return Baseline(f"published code, {self.way}", frame, self.psnr)

    def graph(self, capture: Capture = captured) -> Baseline:
        """In a CUDA graph. Raises Absent."""
        replay = graphed(self.forward, self.system, self.device, capture)
        return Baseline(f"published code, {self.way}, CUDA graph", replay, self.psnr)


def _no_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run


def published(
    folder: str | Path, name: str, system: Any, truth: Truth, device: torch.device
) -> Published:
    """The checkout's network with this system's weights, its pictures checked.

    Args:
        name: Of a seeded or shipped system: its configuration is known.
    Raises:
        Absent: The checkout cannot draw this system.
        Unfaithful: It draws other pictures.
    """
    from models import seeded

    recipe = systems.SEEDED.get(name) or seeded.RECIPES.get(name)
    if recipe is None:
        raise Absent(f"the configuration of {name} is in a checkpoint; name a built-in system")
    module = networks(folder, recipe.family)
    way = extensions(folder, device)
    with torch.random.fork_rng(devices=[]):
        network = module.Generator(**recipe.config)
    network.load_state_dict(system.generator.state_dict(), strict=True)
    network = network.synthesis.to(device).eval().requires_grad_(False)

    def forward(identity: Any, motion: Any, **settings: Any) -> Any:
        ws = identity.tensors["w"] + motion.tensors["dw"][:, None]
        return network(ws, noise_mode="const", **settings)

    found = []
    identity = placed(truth.identity, device)
    with torch.inference_mode(), full_precision():
        for motion, exact in itertools.islice(zip(truth.motions, truth.images, strict=True), 2):
            image = forward(identity, placed(motion, device), force_fp32=True)
            found.append(psnr(image[0].permute(1, 2, 0).cpu(), exact))
    worst = gate("published code", found, torch.float32)
    return Published(forward, way, worst, system, device)
