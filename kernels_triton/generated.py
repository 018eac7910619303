"""Kernels whose source is generated: written to a private cache folder and imported from there.

numba keeps its machine code beside the source, so a first start compiles and later ones load.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
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

    What lies there is run, so it must be the user's alone; where that cannot be had (a read-only
    home, somebody else's folder) a private temporary one is taken, and each start compiles again.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    folder = root / "stylewire" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # fails where it belongs to somebody else
        (folder / "__pycache__").mkdir(exist_ok=True, mode=0o700)
        owned = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:
        owned = False
    return folder if owned else Path(tempfile.mkdtemp(prefix="stylewire-kernels-"))


@functools.lru_cache
def _folder() -> Path:
    return cache_folder()
