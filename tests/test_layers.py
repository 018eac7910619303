"""Who may import whom, read from the sources: the arrows of docs/architecture.md."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("kernels_triton", "models", "realtime")  # each may import those before it
OUTERMOST = ("bench", "examples", "tests")  # imported by none of LAYERS
SHARED_BY_SYSTEMS = {
    "backbones",
    "commands",
    "faces",
    "fused",
    "metrics",
    "pickle_import",
    "training",
    "weights",
}

# Third-party packages and the only places that may import them. A new place is a decision: it is
# added here, and docs/architecture.md says why.
CONFINED = {
    "triton": [
        "kernels_triton/*/kernel.py",
        "kernels_triton/*/gluon_kernel.py",
        "kernels_triton/filtered_lrelu/stream.py",
        "kernels_triton/filtered_lrelu/lanes.py",
        "kernels_triton/aot.py",
    ],
    "cupy": ["kernels_triton/rgb_to_i420/cupy_cuda.py"],
    "torch_tensorrt": ["realtime/backends/tensorrt.py"],
    "numba": [
        "kernels_triton/simd*.py",
        "kernels_triton/*/simd_*.py",
        "kernels_triton/compiled.py",
        "kernels_triton/generated.py",
        "realtime/i420/numba_cpu.py",
        "models/training/heads/*.py",
    ],
    "llvmlite": ["kernels_triton/simd*.py"],
    "aiohttp": ["realtime/signaling.py"],
    "av": [
        "realtime/encoder.py",
        "realtime/h264.py",
        "realtime/vp8.py",
        "realtime/libvpx.py",
        "realtime/pyav.py",
        "realtime/peer_tuning.py",
        "realtime/sinks/*.py",
        "models/training/video_file.py",
    ],
    "aiortc": [
        "realtime/viewer.py",
        "realtime/peer_tuning.py",
        "realtime/peer_wire.py",
        "realtime/sinks/*.py",
    ],
    "aioice": ["realtime/peer_wire.py"],
    "cv2": [
        "realtime/*",
        "models/sample.py",
        "models/training/pictures.py",
        "models/training/prepare*.py",
        "models/training/data/*.py",
        "models/training/heads/*.py",
    ],
    "safetensors": ["models/checkpoint.py"],
    "rich": [
        "realtime/__main__.py",
        "realtime/doctor.py",
        "models/__main__.py",
        "models/commands/*.py",
        "models/training/report.py",
    ],
}

# What each layer may know beside the standard library, torch and numpy.
KNOWN = {
    "kernels_triton": {"numba", "llvmlite", "triton", "cupy"},
    "models": {"safetensors", "rich", "cv2", "numba", "av"},
    "realtime": {"numba", "aiohttp", "aioice", "av", "aiortc", "cv2", "rich", "torch_tensorrt"},
}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and full name of each import, wherever it stands, relative ones made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text() if text is None else text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def layer_faults(path: Path, text: str | None = None) -> list[str]:
    """Arrows of this file that point outwards."""
    own = shown(path).split("/")[0]
    inner = LAYERS[: LAYERS.index(own)]
    forbidden = {*LAYERS, *OUTERMOST} - {own, *inner}
    return [
        f"{shown(path)}:{line} imports {name}"
        for line, name in imports(path, text)
        if name.split(".")[0] in forbidden
    ]


def system_faults(path: Path, text: str | None = None) -> list[str]:
    """Imports from one system of models/ into another."""
    systems = {p.name for p in (ROOT / "models").iterdir() if p.is_dir()} - SHARED_BY_SYSTEMS
    own = shown(path).split("/")[1]
    if own not in systems and own not in SHARED_BY_SYSTEMS:
        return []  # registry.py and seeded.py bring systems together; that is their work
    return [
        f"{shown(path)}:{line} imports {name}"
        for line, name in imports(path, text)
        if name.startswith("models.") and name.split(".")[1] in systems - {own}
    ]


def confinement_faults(path: Path, text: str | None = None) -> list[str]:
    """Confined packages imported elsewhere."""
    faults = []
    for line, name in imports(path, text):
        allowed = CONFINED.get(name.split(".")[0])
        if allowed is not None and not any(fnmatch.fnmatch(shown(path), at) for at in allowed):
            faults.append(f"{shown(path)}:{line} imports {name}; only {', '.join(allowed)} may")
    return faults


def test_arrows_between_layers_never_turn_back() -> None:
    assert [fault for path in sources(*LAYERS) for fault in layer_faults(path)] == []


def test_systems_never_import_each_other() -> None:
    assert [fault for path in sources("models") for fault in system_faults(path)] == []


def test_confined_packages_stay_in_their_files() -> None:
    assert [fault for path in sources(*LAYERS) for fault in confinement_faults(path)] == []


def test_each_layer_knows_only_its_packages() -> None:
    faults = []
    for path in sources(*LAYERS):
        own = shown(path).split("/")[0]
        for line, name in imports(path):
            top = name.split(".")[0]
            if top not in {*sys.stdlib_module_names, *LAYERS, "torch", "numpy"} | KNOWN[own]:
                faults.append(f"{shown(path)}:{line} imports {name}, unknown to {own}")
    assert faults == []


def test_models_and_kernels_know_no_event_loop_and_no_socket() -> None:
    out = {"asyncio", "socket", "ssl", "http", "urllib", "aiohttp", "aiortc"}
    faults = [
        f"{shown(path)}:{line} imports {name}"
        for path in sources("kernels_triton", "models")
        for line, name in imports(path)
        if name.split(".")[0] in out
    ]
    assert faults == []


def test_insides_of_aiortc_are_touched_where_they_are_checked() -> None:
    """Name-mangled attributes (`_RTCRtpSender__queue`) are another package's private state."""
    insides = re.compile(r"_(RTC|RTCRtp|Rtp|Media|Remote|H264|Vp8)\w*__\w+")
    faults = [
        f"{shown(path)}:{number} {found.group()}"
        for path in sources(*LAYERS, "bench", "examples")
        if shown(path) not in ("realtime/peer_tuning.py", "realtime/peer_wire.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := insides.search(line))
    ]
    assert faults == []


def test_no_script_shadows_a_module() -> None:
    """`python bench/x.py` puts bench/ first on the path: a profile.py there hides the real one."""
    taken = {*sys.stdlib_module_names, *CONFINED, *LAYERS, "torch", "numpy", "cv2", "rich"}
    assert [shown(p) for p in sources("bench", "examples") if p.stem in taken] == []


@pytest.mark.parametrize(
    ("where", "text", "check"),
    [
        ("models/errors.py", "from realtime import clock", layer_faults),
        ("kernels_triton/choice.py", "def f():\n    import models.walk", layer_faults),
        ("realtime/clock.py", "import bench.harness", layer_faults),
        ("models/stylegan_v/config.py", "from ..stylegan import system", system_faults),
        (
            "models/backbones/layers.py",
            "from models.stylegan_v.networks import Generator",
            system_faults,
        ),
        ("realtime/clock.py", "from aiohttp import web", confinement_faults),
        ("models/walk.py", "import triton.language as tl", confinement_faults),
    ],
)
def test_a_forbidden_import_is_seen(where: str, text: str, check) -> None:  # type: ignore[no-untyped-def]
    assert len(check(ROOT / where, text)) == 1


# Packages that are optional or slow to import: only files that exist for them do, on demand.
OPTIONAL = {"triton", "cupy", "tensorrt", "torch_tensorrt", "numba", "llvmlite"}


def module_names(*folders: str) -> list[str]:
    """Every module but those that exist for an optional package."""
    kept = []
    patterns = [at for name in sorted(OPTIONAL & set(CONFINED)) for at in CONFINED[name]]
    for path in sources(*folders):
        if path.stem != "__main__" and not any(fnmatch.fnmatch(shown(path), at) for at in patterns):
            parts = path.relative_to(ROOT).with_suffix("").parts
            kept.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return kept


def imported_by(names: list[str], before: Sequence[str] = ()) -> dict[str, list[str]]:
    """What a fresh interpreter has loaded, opened for writing or started after these imports.

    Args:
        before: Packages imported first, whose own doings are not counted.
    """
    program = (
        "import importlib, json, sys\n"
        "did = []\n"
        "def audit(event, args):\n"
        "    writes = event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+')\n"
        "    if writes or event in ('socket.connect', 'subprocess.Popen', 'os.system'):\n"
        "        did.append(f'{event} {args[0]}')\n"
        "sys.dont_write_bytecode = True\n"
        "before, names = json.loads(sys.argv[1])\n"
        "for name in before: importlib.import_module(name)\n"
        "sys.addaudithook(audit)\n"
        "for name in names: importlib.import_module(name)\n"
        "torch = sys.modules.get('torch')\n"
        "if torch is not None and torch.cuda.is_initialized(): did.append('CUDA')\n"
        "print(json.dumps({'modules': sorted(sys.modules), 'did': did}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([before, names])],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_importing_everything_touches_no_device_file_or_optional_package() -> None:
    bought = ["torch", "numpy", "cv2", "av", "aiortc", "aiohttp", "safetensors.torch", "rich"]
    after = imported_by(module_names(*LAYERS), before=bought)
    assert after["did"] == []
    assert set(after["modules"]) & OPTIONAL == set()


def test_models_import_no_media_and_no_server() -> None:
    # Those that read and write pictures and clips are imported by whoever asks for that.
    names = {
        name
        for name in module_names("kernels_triton", "models")
        if name != "models.sample" and not name.startswith(("models.training", "models.commands"))
    }
    after = imported_by(sorted(names))
    assert set(after["modules"]) & {"av", "aiortc", "aiohttp", "cv2"} == set()


def test_rules_without_pictures_import_without_torch() -> None:
    """The command line answers --help, and the page's schema is made, without seconds of torch."""
    plain = ["config", "errors", "messages", "clock", "timeline", "sdp", "rate", "rtp_payload"]
    after = imported_by([f"realtime.{name}" for name in plain])
    assert "torch" not in after["modules"]
