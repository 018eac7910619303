"""Compile the CPU's kernels in a process of its own, once per machine and version.

A compiler holds the interpreter's lock for seconds at a time: in the loader thread it would stop a
stream that is running beside it. What the child has compiled lies in numba's cache on disk, from
where this process loads it in milliseconds.

    python -m realtime.backends.cpu_kernels < SPECIFICATION        what the child does
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch

import kernels_triton
from kernels_triton.filtered_lrelu import Resampling, fused_filtered_lrelu
from kernels_triton.generated import cache_folder

FIXED = ("bias_act", "fourier_input", "rgb_to_i420", "torgb_i420", "upfirdn2d")
TIMEOUT_S = 600.0
POLL_S = 0.1  # how often somebody is asked whether this is still wanted
GRACE_S = 0.5  # from asking the child to end to ending it; below `loader.EXIT_GRACE_S`
log = logging.getLogger(__name__)


def compile_beside(
    resamplings: Iterable[Resampling],
    dtype: torch.dtype,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Have a child process compile what a network needs, unless that was done here before.

    Failure costs nothing but time: what is missing is compiled in this process when it is drawn.
    The child has ended when this returns or raises, and when this process ends in order; if it is
    killed, the child finishes its minute by itself.

    Args:
        check: Called every POLL_S; what it raises ends the child and is raised.
    """
    root = Path(kernels_triton.__file__).parents[1]
    specification = _specification(resamplings, dtype)
    folder = cache_folder()
    if folder.parent == Path(tempfile.gettempdir()):  # the child would have another: no use
        folder.rmdir()
        return
    mark = folder / f"compiled_{_digest(specification, root)}"
    if mark.exists():
        return
    log.warning("compiling kernels for this CPU: once, and in about a minute.")
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # A terminal's Ctrl-C is for this process, which then ends the child: else the child
            # would seem to have failed, and all would be compiled here.
            process_group=0,
        )
    except OSError as error:
        log.warning("no kernels were compiled beside the stream (%s).", type(error).__name__)
        return
    try:
        complaint = _waited_for(child, specification, check)
    except subprocess.TimeoutExpired:
        log.warning("no kernels were compiled beside the stream in %g s.", TIMEOUT_S)
        return
    if child.returncode:
        log.warning("no kernels were compiled beside the stream: %s", complaint[-2000:])
        return
    try:
        mark.touch()
    except OSError:  # a full or read-only disk: the next start asks again
        log.warning("%s cannot be written; the next start compiles again.", mark.parent)


def _waited_for(child: subprocess.Popen[str], given: str, check: Callable[[], None]) -> str:
    """What the child says on stderr until it ends. It is over whatever is raised.

    Args:
        given: For its stdin.
    Raises:
        TimeoutExpired: It took TIMEOUT_S.
    """
    end = functools.partial(_end, child)
    deadline = time.monotonic() + TIMEOUT_S
    more: str | None = given
    with contextlib.ExitStack() as afterwards:  # the last one first
        afterwards.callback(atexit.unregister, end)
        atexit.register(end)  # this may be a daemon's thread, which nobody ends in order
        afterwards.enter_context(child)  # closes its pipes
        afterwards.callback(end)
        while True:
            try:
                return child.communicate(more, timeout=POLL_S)[1]
            except subprocess.TimeoutExpired:  # what was read is kept
                if time.monotonic() > deadline:
                    raise
            more = None  # it is on its way
            check()


def _end(child: subprocess.Popen[str]) -> None:
    """End and reap it, if it has not ended."""
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _specification(resamplings: Iterable[Resampling], dtype: torch.dtype) -> str:
    plain = [dataclasses.asdict(how) for how in dict.fromkeys(resamplings)]
    return json.dumps({"dtype": str(dtype).removeprefix("torch."), "resamplings": plain})


def _digest(specification: str, root: Path) -> str:
    """Of all that decides what is compiled: constants, sources, compiler, processor."""
    digest = hashlib.sha256(specification.encode())
    for path in sorted((root / "kernels_triton").rglob("*.py")):
        digest.update(path.read_bytes())
    about = (version("numba"), version("llvmlite"), sys.version, platform.machine(), str(root))
    digest.update(repr((about, os.environ.get("NUMBA_CPU_NAME"))).encode())
    return digest.hexdigest()[:16]


def main() -> None:
    """Compile by drawing: a kernel's machine code depends on its constants, not on sizes."""
    if hasattr(os, "nice"):
        os.nice(10)
    specification = json.load(sys.stdin)
    for name in FIXED:  # they say which types they are compiled for
        importlib.import_module(f"kernels_triton.{name}.simd_cpu")
    x = torch.zeros(1, 8, 8, 16, dtype=getattr(torch, specification["dtype"]))
    for given in specification["resamplings"]:
        terms = tuple((tuple(v), tuple(h)) for v, h in given["down_terms"])
        how = Resampling(**{**given, "up_taps": tuple(given["up_taps"]), "down_terms": terms})
        fused_filtered_lrelu(x, how, (8, 8))


if __name__ == "__main__":
    main()
