"""Kernels whose source is generated: written to a private cache folder and imported from there.

numba keeps its machine code beside the source, so a first start compiles and later ones load.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

_importing = threading.RLock()  # imports may nest


def load(name: str, source: str, *uses: ModuleType) -> ModuleType:
    """The module that `source` is, from the cache folder.

    Args:
        name: Of the kernel; the file is named after it and a digest of its source.
        uses: Modules whose code the kernel takes in: numba asks only whether the kernel's own file
            has changed, so theirs becomes a part of its name.
    """
    digest = hashlib.sha256(source.encode())
    for module in uses:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    full = f"{name}_{digest.hexdigest()[:16]}"
    with _importing:
        if full not in sys.modules:
            _import(full, source)
        return sys.modules[full]


def _import(name: str, source: str) -> None:
    path = _folder() / f"{name}.py"
    if not path.is_file() or path.read_text() != source:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # another process may be writing it too
        temporary.write_text(source)
        temporary.replace(path)
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # numba pickles its functions by module name when it caches them
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def cache_folder() -> Path:
    """Where generated kernels live: under XDG_CACHE_HOME (if absolute) or ~/.cache.

    What lies there is run, so nobody else may be able to write there, or to put another folder in
    the place of one on the way to it. Where that cannot be had (a read-only home, somebody else's
    folder) a private temporary one is taken, which goes when this process ends: each start compiles
    again.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    folder = root / "stylewire" / "kernels"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for own in (folder, folder / "__pycache__"):  # the second is numba's
            own.mkdir(exist_ok=True, mode=0o700)
            if not _private(own):
                return _temporary()
            own.chmod(0o700)
        reached = folder.resolve()
        trusted = all(_trusted(above) for above in reached.parents)
    except OSError:
        trusted = False
    return folder if trusted else _temporary()


def _private(folder: Path) -> bool:
    """Whether it is a folder of this user's, no link, and nobody else could write into it."""
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == _user() and not about.st_mode & 0o022


def _trusted(folder: Path) -> bool:
    """Whether nobody but this user and root can put another thing in the place of what is in it.

    Its group may write where it is the user's own: many systems give each user one.
    """
    about = folder.stat()
    if about.st_mode & stat.S_ISVTX:  # only its owner may rename what is in there
        return True
    others = stat.S_IWOTH | (0 if about.st_gid == _group() else stat.S_IWGRP)
    return about.st_uid in (0, _user()) and not about.st_mode & others


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _group() -> int:
    return os.getgid() if hasattr(os, "getgid") else 0


def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="stylewire-kernels-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # not a fork of it, which ends sooner
        shutil.rmtree(folder, ignore_errors=True)


@functools.lru_cache
def _folder() -> Path:
    return cache_folder()
