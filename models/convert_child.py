"""The process in which a foreign file is converted, with limits that the kernel keeps.

`python -m models.convert_child SOURCE OUT NETWORK MAX_BYTES CPU_SECONDS SPARE_BYTES` writes one
JSON object per line to standard output: `{"stage", "done"}` while it works, then either the result,
or `{"code", "message"}` of a refusal (exit status 65).

Reading a hostile file is safe by itself (`models/pickle_import`); this is the second wall: memory,
processor time, file size and descriptors are limited where the platform can, and starting a
program or a connection is refused by an audit hook, whoever asks for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from models.errors import BadCheckpoint

REFUSED = 65  # exit status, EX_DATAERR
_PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn")
_CONNECTIONS = ("subprocess.Popen", "socket.connect", "socket.bind", "socket.sendto")
_FORBIDDEN = frozenset(_PROGRAMS + _CONNECTIONS)


def main(argv: list[str]) -> int:
    source, out, which = Path(argv[0]), Path(argv[1]), argv[2]
    max_bytes, cpu_s, spare_bytes = (int(number) for number in argv[3:])
    tell(stage="starting", done=0.0)
    from models.pickle_import import (
        Limits,
        convert,
    )  # torch: before the limits, which count from it

    size = source.stat().st_size if source.is_file() else 0
    limited = confine(cpu_s, spare_bytes + 4 * size, (64 << 20) + 4 * size)
    try:
        written = convert(
            source,
            out,
            which=which,
            limits=Limits(file_bytes=max_bytes),
            progress=lambda stage, done: tell(stage=stage, done=done),
        )
    except BadCheckpoint as error:
        tell(code=error.code, message=str(error).removeprefix(f"{error.code}: "))
        return REFUSED
    except MemoryError:
        tell(code="CKPT_MEMORY", message=f"stopped: more than {spare_bytes >> 20} MiB were needed")
        return REFUSED
    about = json.loads(written.read_text())
    tell(family=about["family"], config=about["config"], meta=about["meta"], limited=limited)
    return 0


def tell(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def confine(cpu_s: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Limits this process from now on; gives the names of the limits this platform keeps.

    Args:
        cpu_s: Processor seconds from now.
        memory_bytes: Address space beyond what is mapped already.
        file_bytes: Size of any file written.
    """
    sys.addaudithook(_refuse_programs)
    try:
        import resource
    except ImportError:  # not on Windows
        return []
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        "RLIMIT_CPU": int(used.ru_utime + used.ru_stime) + cpu_s,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    mapped = Path("/proc/self/statm")
    if mapped.exists():  # elsewhere the limit would also count what is mapped already
        wanted["RLIMIT_AS"] = int(mapped.read_text().split()[0]) * resource.getpagesize()
        wanted["RLIMIT_AS"] += memory_bytes
    kept = []
    for name, value in wanted.items():
        which = getattr(resource, name, None)
        if which is None:
            continue
        hard = resource.getrlimit(which)[1]
        # Processor time: first the signal that says so, SIGKILL only for who ignores it.
        most = value + 5 if name == "RLIMIT_CPU" else value
        if hard != resource.RLIM_INFINITY:
            value, most = min(value, hard), min(most, hard)
        resource.setrlimit(which, (value, most))
        kept.append(name)
    return kept


def _refuse_programs(event: str, args: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN:
        raise PermissionError(f"{event} while a foreign file is converted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
