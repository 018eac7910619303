"""Converting a foreign file in a limited process of its own, once.

Imports neither torch nor the file's readers: those belong to `models/convert_child.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from models.checkpoint_files import opened, read_file
from models.errors import BadCheckpoint, ModelError

VERSION = 1  # of the conversion; a new one does not find what older ones cached
_ROOT = Path(__file__).resolve().parents[1]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessLimits:
    """What one conversion may take.

    Args:
        file_bytes: Largest file that is read at all.
        cpu_s: Processor seconds, torch's import not counted.
        wall_s: Seconds altogether.
        spare_bytes: Memory beyond torch and four times the file.
    """

    file_bytes: int = 8 << 30
    cpu_s: int = 120
    wall_s: float = 300.0
    spare_bytes: int = 2 << 30


@dataclass(frozen=True)
class Converted:
    """What a file turned out to be.

    Args:
        path: The written JSON.
        config: Constructor arguments of the generator.
        meta: Source, licence, number of parameters.
        limited: The kernel's limits that were in force.
    """

    path: Path
    family: str
    config: dict[str, Any]
    meta: dict[str, Any]
    limited: list[str]


def convert_file(
    source: Path | str,
    out: Path | str,
    *,
    which: str = "G_ema",
    limits: ProcessLimits | None = None,
    report: Callable[[str, float], None] = lambda stage, done: None,
    sha256: str | None = None,
) -> Converted:
    """Converts one network of a foreign pickle to `out`.safetensors and `out`.json.

    Args:
        out: Folder and name; made only when the conversion succeeds.
        report: Called with what is being done and the fraction done.
        sha256: What the file is known to be; another one is refused.
    Raises:
        BadCheckpoint: The file is refused, or a limit was reached (CKPT_TIMEOUT, CKPT_MEMORY); then
            nothing was written.
        ModelError: The result cannot be written, or the conversion itself failed; its last lines of
            error are in the message.
    """
    source, out, limits = Path(source).absolute(), Path(out).absolute(), limits or ProcessLimits()
    if out.suffix in (".json", ".safetensors"):
        out = out.with_suffix("")
    try:
        nearest = next(folder for folder in out.parents if os.path.lexists(folder))
        # The child writes into a folder that goes away with whatever a killed child leaves in it.
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".converting-") as folder:
            told = _run(source, Path(folder) / "converted", which, limits, report)
            if sha256 is not None and told["meta"]["source_sha256"] != sha256:
                raise BadCheckpoint(
                    "CKPT_HASH_MISMATCH", f"{source.name} was replaced meanwhile; convert it again"
                )
            out.parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".safetensors", ".json"):
                os.replace(Path(folder) / f"converted{suffix}", out.with_name(out.name + suffix))
    except OSError as error:
        raise ModelError(f"cannot convert to {out}: {error.strerror or error}") from error
    return Converted(out.with_name(out.name + ".json"), **told)


def _run(
    source: Path,
    out: Path,
    which: str,
    limits: ProcessLimits,
    report: Callable[[str, float], None],
) -> dict[str, Any]:
    """The child's last message, if it was a result."""
    command = [sys.executable, "-m", "models.convert_child", str(source), str(out), which]
    command += [str(limits.file_bytes), str(limits.cpu_s), str(limits.spare_bytes)]
    paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    last: dict[str, Any] = {}
    late = threading.Event()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        with _killed_after(child, limits.wall_s, late):
            assert child.stdout is not None
            for line in child.stdout:
                last = json.loads(line)
                if "stage" in last:
                    report(last["stage"], last["done"])
        status = child.returncode
        if "code" in last:
            raise BadCheckpoint(last["code"], last["message"])
        if status == 0 and "family" in last:
            return last
        raise _failure(status, late.is_set(), errors, limits)


@contextmanager
def _killed_after(
    child: subprocess.Popen[bytes], wall_s: float, late: threading.Event
) -> Iterator[None]:
    """Ends and reaps the child when the block ends, at the latest after `wall_s`."""

    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(wall_s, kill)
    timer.start()
    try:
        with child:
            try:
                yield
            except BaseException:  # whatever ends the block, Ctrl-C too, ends the child
                child.kill()
                raise
    finally:
        timer.cancel()
        timer.join()


def _failure(
    status: int, late: bool, errors: IO[bytes], limits: ProcessLimits
) -> BadCheckpoint | ModelError:
    """Why a child ended without a word."""
    if late:
        return BadCheckpoint("CKPT_TIMEOUT", f"the conversion was stopped after {limits.wall_s} s")
    ended_by = signal.Signals(-status).name if status < 0 else ""
    if ended_by == "SIGXCPU":
        return BadCheckpoint("CKPT_TIMEOUT", f"stopped after {limits.cpu_s} s of processor time")
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
    tail = errors.read().decode(errors="replace").strip()
    # Out of memory a process is killed by the kernel, aborted by C++, or told by an allocator.
    words = ("MemoryError", "bad_alloc", "allocate memory")
    if ended_by in ("SIGKILL", "SIGABRT") or any(word in tail for word in words):
        spare = limits.spare_bytes >> 20
        return BadCheckpoint("CKPT_MEMORY", f"stopped: more than {spare} MiB were needed")
    return ModelError(f"the conversion failed (status {status}); please report:\n{tail}")


def is_foreign(path: Path | str) -> bool:
    """Whether the file begins like a pickle, whatever its name."""
    try:
        head = read_file(Path(path), sys.maxsize, first=2)
    except (BadCheckpoint, OSError):  # no file: a folder, or a pipe, which would be waited for
        return False
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def cache_folder() -> Path:
    """Where conversions are kept: `stylewire/converted` in the user's cache (`XDG_CACHE_HOME`)."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "stylewire" / "converted"


def cached(
    path: Path | str,
    *,
    which: str = "G_ema",
    limits: ProcessLimits | None = None,
    say: Callable[[str], None] = _log.info,
    report: Callable[[str, float], None] = lambda stage, done: None,
) -> Path:
    """The checkpoint of a foreign file, converted at the first call; any other path as it is.

    The conversion is found again by the file's SHA-256, so a renamed file is not converted twice
    and a changed one is never taken for the old one.

    Args:
        say: Takes the one sentence on what is happening.
        report: Called with what is being done and the fraction done.
    Raises:
        BadCheckpoint: see `convert_file`.
        ModelError: likewise.
    """
    path, limits = Path(path), limits or ProcessLimits()
    if not is_foreign(path):
        return path
    with opened(path, limits.file_bytes) as (file, _):
        digest = hashlib.file_digest(file, "sha256")
    source = digest.hexdigest()
    digest.update(which.encode())
    folder = cache_folder() / f"v{VERSION}-{digest.hexdigest()[:40]}"
    for written in sorted(folder.glob("*.json")):
        if written.with_suffix(".safetensors").is_file():
            say(f"{path.name}: using its conversion {written}")
            return written
    # The name is shown as the model's, so the file keeps it as far as it is harmless.
    out = folder / (re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)[:60] or "model")
    say(f"{path.name} can contain code: converting it once, without running any of it")
    # By its hash it is found again: what was put in its place since then is not kept under it.
    found = convert_file(path, out, which=which, limits=limits, report=report, sha256=source)
    say(f"{path.name}: converted to {found.path}")
    return found.path
