"""`python fuzz_pickles.py GOLDENS SEED COUNT`: reads COUNT mutated pickles and reports as JSON.

Runs as a process of its own: it limits its memory, hooks the interpreter's audit events and counts
every one that happens while a file is read, interpreted or built. `--canary` unpickles one file
with Python's own unpickler instead, which shows that the counting works.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path

# The small sound network is read in 2 ms, the snapshot in 40: chosen accordingly.
BASES = {
    "malicious_module_src": 80,
    "pickle_sg2_nested": 8,
    "pickle_r": 4,
    "pickle_sg2": 4,
    "pickle_t": 2,
    "snapshot": 2,
}
BUILD_EVERY = 20  # of the files that can be read, one in so many is built into our network
SPARE_BYTES = 512 << 20
TOKENS = (
    b"cos\nsystem\n(S'touch PWNED'\ntR.",
    b"\x8c\x02os\x8c\x06system\x93\x8c\x0btouch PWNED\x85R",
    b"\x8c\x08builtins\x8c\x04eval\x93",
    b"r\x00\x00\x00\x10",
    b"\x96\xff\xff\xff\xff\xff\x00\x00\x00",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b"\x8bd\x00\x00\x00",
    b"B\xff\xff\xff\xff",
    b"\x82\x01",
    b"Q",
    b"((((((((",
    b"2222\x86\x86\x86",
    b"}N}s",
    b"\x93",
    b"R",
    b"b",
    b"u",
    b".",
)

events: collections.Counter[str] = collections.Counter()
armed = False


def audit(event: str, args: tuple[object, ...]) -> None:
    if armed:
        events[event] += 1


def structure(data: bytes) -> tuple[list[int], list[int]]:
    """Where opcodes begin, and where small arguments are: most of a file is weights, where every
    change is sound.
    """
    import pickletools

    opcodes, arguments = [], []
    for opcode, argument, position in pickletools.genops(data):
        assert position is not None
        opcodes.append(position)
        if opcode.name in ("BININT1", "BINGET", "BININT2", "BINFLOAT", "BINPUT"):
            arguments.append(position + 1)
        elif isinstance(argument, str) and len(argument) < 30 and "UNICODE" in opcode.name:
            arguments += range(position + 2, position + 2 + len(argument))
    return opcodes, arguments


def mutate(
    data: bytes, where: tuple[list[int], list[int]], other: bytes, rng: random.Random
) -> bytes:
    """One to four random changes, or, as often, one changed argument: a well-formed lie."""
    changed = bytearray(data)
    places, arguments = where
    if rng.random() < 0.5:
        at = rng.choice(arguments)
        changed[at] = (changed[at] + rng.choice((1, -1, 2, 16, 128))) % 256
        return bytes(changed)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.choice(places) if rng.random() < 0.7 else rng.randrange(len(data))
        at = min(at + rng.randrange(3), max(0, len(changed) - 1))
        match rng.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[at : at + 1] = bytes(
                    [(changed[at] if changed else 0) ^ 1 << rng.randrange(8)]
                )
            case 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                del changed[at : at + rng.randrange(1, 40)]
            case 4:
                changed[at:at] = rng.choice(TOKENS)
            case 5:
                changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x7f"))
            case 6:
                start = rng.randrange(len(other))
                changed[at:at] = other[start : start + rng.randrange(1, 200)]
            case 7:
                del changed[at if rng.random() < 0.3 else len(changed) :]
    return bytes(changed)


def peak_kb() -> int:
    """Largest resident size so far. (getrusage would count the parent's, from before the exec.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def origin(error: BaseException) -> str:
    """Type of an exception and the file it came from."""
    deepest = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(deepest.filename).name}"


def main(goldens: Path, seed: int, count: int) -> dict[str, object]:
    global armed
    from models import checkpoint
    from models.errors import BadCheckpoint
    from models.pickle_import import Limits, interpret
    from models.pickle_import.conversion import read_bytes, verify

    sys.path.insert(0, str(Path(__file__).parent))
    import hostile_pickles

    limits = Limits()
    data = {name: (goldens / f"{name}.pkl").read_bytes() for name in BASES}
    places = {name: structure(blob) for name, blob in data.items()}
    for blob in data.values():  # also loads whatever torch loads on first use
        verify(interpret(read_bytes(blob, limits), "G_ema", len(blob), limits))
    # What asks for more than its tensors is made without memory first: torch loads much for that.
    sizes = dict.fromkeys(("z_dim", "w_dim", "img_resolution", "img_channels"), 4096)
    try:
        checkpoint.construct("stylegan2", {**sizes, "c_dim": 0, "img_channels": 3}, {})
    except BadCheckpoint as error:
        assert error.code == "CKPT_ARCH_MISMATCH"
    rng = random.Random(seed)
    codes: collections.Counter[str] = collections.Counter()
    causes: collections.Counter[str] = collections.Counter()
    uncoded: list[str] = []
    slowest, built, changed = (0.0, ""), 0, 0
    before = peak_kb()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + SPARE_BYTES,) * 2)
    sys.addaudithook(audit)

    def cases():
        for name, (blob, _) in hostile_pickles.CASES.items():
            yield name, blob
        names, weights = list(BASES), list(BASES.values())
        for number in range(count):
            name = rng.choices(names, weights)[0]
            yield (
                f"{name} {number}",
                mutate(data[name], places[name], data[rng.choice(names)], rng),
            )

    for label, blob in cases():
        build = rng.randrange(BUILD_EVERY) == 0
        started, failure = time.process_time(), None
        armed = True
        try:
            found = interpret(read_bytes(blob, limits), "G_ema", len(blob), limits)
            if build:
                built += 1
                verify(found)
        except Exception as error:  # sorted out below, when nothing is counted any more
            failure = error
        armed = False
        taken = time.process_time() - started
        code = "sound"
        if isinstance(failure, BadCheckpoint):
            code = failure.code
            if failure.__cause__ is not None:
                causes[origin(failure.__cause__)] += 1
        elif failure is not None:
            code = "uncoded"
            uncoded.append(f"{label}: {failure!r} in {origin(failure)}"[:500])
        slowest = max(slowest, (taken, label))
        codes[code] += 1
        changed += 1
    return {
        "files": changed,
        "codes": codes,
        "causes": causes,
        "uncoded": uncoded[:10],
        "uncoded_count": len(uncoded),
        "slowest_s": slowest[0],
        "slowest": slowest[1],
        "grown_mb": (peak_kb() - before) / 1024,
        "built": built,
        "events": events,
        "pwned": os.path.exists("PWNED"),
    }


def canary(path: Path) -> dict[str, object]:
    """What the hook sees when Python's own unpickler reads a hostile file."""
    global armed
    import pickle

    sys.addaudithook(audit)
    armed = True
    try:
        pickle.loads(path.read_bytes())
    finally:
        armed = False
    return {"events": events, "pwned": os.path.exists("PWNED")}


if __name__ == "__main__":
    if sys.argv[1] == "--canary":
        print(json.dumps(canary(Path(sys.argv[2]))))
    else:
        print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
