"""torch.compile: the plain forward as fewer, larger kernels.

The network is exported first, so that the compiler meets operators only, and the compiled function
asks nothing before it runs: torch's guards would compile again, in the middle of a stream, as soon
as another thread with another number of threads draws.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.contracts import Synthesizer
from realtime.backends import exported
from realtime.backends.eager import EagerRenderer, fall_back, outline
from realtime.errors import BackendUnavailable

COMPILERS = ("c++", "g++", "clang++", "gcc", "clang", "cc")
log = logging.getLogger(__name__)


class Compile:
    """See `realtime.backends.Backend`. Precision is the model's own.

    Args:
        compiler: A back end of torch.compile; others than inductor are for tests.
    Raises:
        BackendUnavailable: There is no C++ compiler, which inductor calls.
    """

    name = "compile"

    def __init__(self, device: torch.device, why: str, compiler: str = "inductor") -> None:
        if compiler == "inductor" and not _cpp_compiler():
            raise BackendUnavailable(
                self.name,
                f"torch.compile needs a C++ compiler, and none of {', '.join(COMPILERS)} is here",
                "Install one (Debian: apt-get install g++), or name it in CXX.",
            )
        self.device = device
        self.why = why
        self._compiler = compiler

    def prepare(
        self, synthesizer: Synthesizer, check: Callable[[], None] = lambda: None
    ) -> EagerRenderer:
        """Compiles before it returns; a minute or two for a large network."""
        placed = synthesizer.eval().requires_grad_(False).to(self.device)
        try:
            codes = exported.example(placed, self.device)
        except NotImplementedError as error:
            return fall_back(placed, self.device, self.name, str(error))
        check()
        log.info("compiling %s for %s, which takes a while", type(placed).__name__, self.device)
        try:
            forward = exported.of_codes(self._compiled(placed, codes), codes)
            exported.check(forward, placed, codes)
        except Exception as error:  # a compiler's errors are of any type
            log.exception("torch.compile failed")
            reason = f"it does not compile ({outline(error)})"
            return fall_back(placed, self.device, self.name, reason)
        return EagerRenderer(forward, self.device, self.name, self.why)

    def _compiled(self, synthesizer: Synthesizer, codes: exported.Codes) -> Callable[..., Tensor]:
        program = exported.export(synthesizer, *codes, way="torch")
        options: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
        if self._compiler == "inductor":
            # As many threads as the one that draws may use, not the one that compiled.
            options["cpp.dynamic_threads"] = True
        return torch.compile(
            program.module(),
            backend=self._compiler,
            dynamic=False,
            fullgraph=True,
            options=options,
        )


def _cpp_compiler() -> bool:
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((named,) if named else COMPILERS))
