"""Kernels compiled ahead of time, without a GPU: what they need of one, and whether that grew.

Each `kernel.py` and `gluon_kernel.py` names its `variants()`: kernels with constants they run with.
`compile_variant` makes the machine code that a launch on that GPU would make, and reads it;
`faults` says what is wrong with it. Triton is imported when the first kernel is compiled.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent
MATRIX = ("HMMA", "HGMMA")  # tensor-core instructions on floating point, before and since sm_90
LOADS = ("LDG", "LDGSTS", "UTMALDG")  # from device memory: to registers, to shared memory, by TMA


@dataclass(frozen=True)
class Variant:
    """One kernel at one set of constants.

    Args:
        name: Unique; the key of the recorded figures.
        kernel: The `@triton.jit` (or Gluon) function.
        signature: Argument to type: "*fp16", "*fp32", "*u8", "i32", "fp32", "constexpr", ...; a
            tuple of "constexpr" for a tuple of constants.
        constants: Values of the constexpr arguments.
        aligned: Arguments that the launcher always passes divisible by 16; every pointer is.
        registers: The most a thread may use.
        shared: The most shared memory a program may use, bytes. 99 KiB fits every target.
        dot: Whether tensor-core instructions must be in it.
        outputs: Results per lane of one turn of its largest loop (of the whole kernel, if it has
            no loop): issue slots per output are counted by it. 0 counts none.
        gluon: Whether the kernel is Gluon's.
        targets: Compute capabilities that it is compiled for.
    """

    name: str
    kernel: Any
    signature: Mapping[str, Any]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    registers: int = 255
    shared: int = 99 * 1024
    dot: bool = False
    outputs: float = 0
    gluon: bool = False
    targets: tuple[int, ...] = field(default=(80, 89, 90))


@dataclass(frozen=True)
class Resources:
    """What one variant needs on one architecture.

    Args:
        name: The variant's.
        capability: 80 means sm_80.
        registers: Per thread.
        shared: Bytes of shared memory per program.
        spill_stores: Bytes per thread that are written because registers ran out.
        spill_loads: Bytes per thread that are read back.
        local: Bytes of local memory (stack) per thread, spilled or not.
        instructions: Machine instructions of the kernel, without padding.
        loop_instructions: Those of its largest loop; 0 without one.
        slots_per_output: Instructions of one turn of the largest loop (without one, of the kernel)
            per result of a lane; 0 where `Variant.outputs` is 0.
        mma: Tensor-core instructions.
        loads: Loads from device memory.
        compile_s: Processor seconds that it took, the assembler's among them; little if Triton
            still had it in its cache.
    """

    name: str
    capability: int
    registers: int
    shared: int
    spill_stores: int
    spill_loads: int
    local: int
    instructions: int
    loop_instructions: int
    slots_per_output: float
    mma: int
    loads: int
    compile_s: float


class Instruction(NamedTuple):
    """One line of machine code."""

    address: int
    always: bool  # no predicate decides whether it acts
    opcode: str  # without its modifiers
    operands: str


def modules() -> list[str]:
    """Full names of the modules that hold kernels, sorted; nothing is imported."""
    files = (*PACKAGE.rglob("kernel.py"), *PACKAGE.rglob("gluon_kernel.py"))
    return sorted(
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files
    )


def variants_of(module: str) -> list[Variant]:
    """The variants that a module names.

    Raises:
        ValueError: It names none, or one twice.
    """
    names = getattr(importlib.import_module(module), "variants", None)
    found: list[Variant] = names() if names else []
    if not found:
        raise ValueError(f"{module} names no variant: give it `variants() -> list[Variant]`")
    twice = [name for name, times in Counter(v.name for v in found).items() if times > 1]
    if twice:
        raise ValueError(f"{module} names the variant {twice[0]!r} twice: names must differ")
    return found


def all_variants() -> list[Variant]:
    """The variants of every kernel there is.

    Raises:
        ValueError: A module names none, or a name is taken twice.
    """
    owners: dict[str, str] = {}
    found = []
    for module in modules():
        for variant in variants_of(module):
            if variant.name in owners:
                raise ValueError(
                    f"{module} and {owners[variant.name]} both name a variant {variant.name!r}"
                )
            owners[variant.name] = module
            found.append(variant)
    return found


def compile_variant(variant: Variant, capability: int) -> Resources:
    """Compiles for an architecture and reads the result. Takes seconds, needs no GPU.

    Args:
        variant: Of `variants()`.
        capability: 80 for sm_80, 90 for sm_90.
    Raises:
        RuntimeError: Triton's interpreter is on, which leaves nothing to compile; or a tool of
            the CUDA toolkit that comes with Triton failed.
        ValueError: Constants, signature and kernel do not belong together.
    """
    started = _processor_s()
    kernel = _compiled(variant, capability)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _tool("cuobjdump", "--dump-resource-usage", str(cubin))
        code = instructions(_tool("cuobjdump", "-sass", str(cubin)))
        found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))
        local = int(found["STACK"]) + int(found["LOCAL"])
        # What is spilled lies on the stack, so without one there is nothing to ask.
        stores, loads = _spilled(kernel.asm["ptx"], capability, folder) if local else (0, 0)
    turn = largest_loop(code)
    counts = Counter(line.opcode for line in code)
    slots = (turn or len(code)) / variant.outputs if variant.outputs else 0.0
    return Resources(
        name=variant.name,
        capability=capability,
        registers=int(found["REG"]),
        shared=int(kernel.metadata.shared),
        spill_stores=stores,
        spill_loads=loads,
        local=local,
        instructions=len(code),
        loop_instructions=turn,
        slots_per_output=round(slots, 2),
        mma=sum(counts[opcode] for opcode in MATRIX),
        loads=sum(counts[opcode] for opcode in LOADS),
        compile_s=round(_processor_s() - started, 2),
    )


def faults(resources: Resources, variant: Variant) -> list[str]:
    """What is wrong with the machine code, in sentences; nothing if it is as it should be."""
    at = f"{resources.name} on sm_{resources.capability}"
    found = []
    if resources.spill_stores or resources.spill_loads:
        found.append(
            f"{at} spills registers: {resources.spill_stores} bytes stored and "
            f"{resources.spill_loads} loaded per thread; give a thread less to hold"
        )
    if resources.registers > variant.registers:
        found.append(
            f"{at} uses {resources.registers} registers per thread; "
            f"its budget is {variant.registers}"
        )
    if resources.shared > variant.shared:
        found.append(
            f"{at} uses {resources.shared} bytes of shared memory; its budget is {variant.shared}"
        )
    if variant.dot and not resources.mma:
        found.append(f"{at} has no tensor-core instruction ({', '.join(MATRIX)}), but should")
    return found


def _processor_s() -> float:
    """Of this process and those it waited for: beside other work, more than time tells."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def _compiled(variant: Variant, capability: int) -> Any:
    """Triton's compiled kernel, with the machine code that a launch would build."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime import JITFunction

    if triton.knobs.runtime.interpret or not isinstance(variant.kernel, JITFunction):
        raise RuntimeError(
            f"{variant.name} cannot be compiled while Triton interprets its kernels: start a "
            f"process without TRITON_INTERPRET (it is {os.environ.get('TRITON_INTERPRET')!r})"
        )
    source: Any = ASTSource
    if variant.gluon:
        from triton.experimental.gluon._runtime import GluonASTSource

        source = GluonASTSource
    names = variant.kernel.arg_names
    if list(variant.signature) != list(names):
        raise ValueError(
            f"{variant.name}: the signature is of {list(variant.signature)}, the kernel takes "
            f"{list(names)}; name all arguments in the kernel's order"
        )
    for name in (*variant.constants, *variant.aligned):
        if name not in variant.signature:
            raise ValueError(f"{variant.name}: the kernel has no argument {name!r}")
    return triton.compile(
        source(
            fn=variant.kernel,
            signature=dict(variant.signature),
            constexprs=dict(variant.constants),
            attrs=dict(_alignment(variant)),
        ),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": variant.num_warps, "num_stages": variant.num_stages},
    )


def _alignment(variant: Variant) -> Iterator[tuple[tuple[int, ...], list[list[Any]]]]:
    """What a launch sees of its arguments: without it loads would be narrower than they are."""
    for at, (name, kind) in enumerate(variant.signature.items()):
        for inner, one in enumerate(kind) if isinstance(kind, tuple) else ((None, kind),):
            if name in variant.aligned or str(one).startswith("*"):
                yield (at,) if inner is None else (at, inner), [["tt.divisibility", 16]]


def _spilled(ptx: str, capability: int, folder: str) -> tuple[int, int]:
    """Bytes per thread of spill stores and loads: only the assembler tells them."""
    from triton.backends.nvidia.compiler import sm_arch_from_capability

    source = Path(folder, "kernel.ptx")
    source.write_text(ptx)
    target = f"--gpu-name={sm_arch_from_capability(capability)}"
    told = _tool("ptxas", "-v", target, str(source), "-o", str(source.with_suffix(".o")))
    found = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", told)
    if found is None:
        raise RuntimeError(f"ptxas did not say what it spilled, but: {told[-500:]}")
    return int(found[1]), int(found[2])


def _tool(name: str, *arguments: str) -> str:
    """What a tool of the CUDA toolkit that comes with Triton prints.

    Raises:
        RuntimeError: It failed.
    """
    import triton

    path = getattr(triton.knobs.nvidia, name).path
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed ({done.returncode}): {done.stderr[-500:]}")
    return done.stdout + done.stderr


def instructions(disassembly: str) -> list[Instruction]:
    """The instructions of a listing by `cuobjdump -sass`, without padding."""
    pattern = r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z]\w*)([^;]*);"
    found = [
        Instruction(int(address, 16), not predicate, opcode, operands)
        for address, predicate, opcode, operands in re.findall(pattern, disassembly)
    ]
    return [line for line in found if line.opcode != "NOP"]


def largest_loop(code: list[Instruction]) -> int:
    """Instructions of the largest loop, those of loops inside it among them; 0 without one.

    A loop is what a branch backwards spans. Rare paths are laid out behind the kernel's end and
    branch back from there; what spans the end is no loop.
    """
    ends = [line.address for line in code if line.opcode == "EXIT" and line.always]
    most = 0
    for line in code:
        target = re.search(r"0x([0-9a-f]+)", line.operands) if line.opcode == "BRA" else None
        start = int(target[1], 16) if target else line.address
        if start < line.address and not any(start <= end < line.address for end in ends):
            most = max(most, sum(start <= other.address <= line.address for other in code))
    return most
