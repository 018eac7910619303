"""`stylewire serve | record | doctor | train | ...`; also `python -m realtime`.

A thin map from flags to frozen configurations. An error is one sentence on stderr and an exit
status: 2 usage, 65 bad data, 69 something is unavailable, 78 a model's configuration is
impossible, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.errors import BadConfig, ModelError
from realtime.config import (
    CODECS,
    PRECISIONS,
    RESOLUTIONS,
    ConfigError,
    RenderConfig,
    ServerConfig,
    StreamConfig,
)
from realtime.errors import RealtimeError
from realtime.loader import busy_after_grace

if TYPE_CHECKING:  # torch, only where it is needed
    from models.sample import Paint

USAGE, BAD_DATA, UNAVAILABLE, BAD_CONFIG, INTERRUPTED = 2, 65, 69, 78, 130
AUTO = "auto"
OF_MODELS = {  # handed on as they are; `python -m models` takes them too
    "convert": "turn a published .pkl into a checkpoint, running nothing of it",
    "sample": "draw one frame into a PNG",
    "train": "train a model on your clips, or on rendered heads",
    "evaluate": "measure a model against data or rendered truth",
    "prepare": "make training clips from a folder of videos",
    "heads": "render heads: videos with labels, contact sheets",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    let_threads_sleep()
    if argv is not None:
        return _run(list(argv))
    # Imports make a million objects that stay: looking through them for garbage, again and again,
    # would be a quarter of the start.
    gc.disable()
    status = _run(sys.argv[1:])
    _leave(status)
    return status


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they have nothing to do, unless the operator wants else.

    They spin by default, on the cores that the encoder and the compiled kernels need. OpenMP reads
    this when torch is loaded, so it comes before that; the second name is Intel's.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def _imported() -> None:
    """Everything heavy is imported: collect garbage from now on, and only among what is new."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in OF_MODELS:
        from models.__main__ import Painter
        from models.__main__ import main as models_main

        _imported()
        painter = Painter(_sample_flags, _sample_painter)
        return _guarded(lambda: models_main(arguments, painter))
    given = parser().parse_args(arguments)
    logging.basicConfig(
        level=(logging.WARNING, logging.INFO, logging.DEBUG)[min(given.verbose, 2)],
        format="%(levelname)s %(name)s: %(message)s",
    )
    command: Callable[[argparse.Namespace], int] = given.run
    return _guarded(lambda: command(given))


def _leave(status: int) -> None:
    """End this process now if a model is still being built: it cannot be told to stop.

    To end the interpreter around a thread in native code could crash it instead.
    """
    if busy_after_grace():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _guarded(command: Callable[[], int]) -> int:
    """Errors as one sentence and a status."""
    status: int
    reason: Exception
    try:
        return command()
    except KeyboardInterrupt:
        return INTERRUPTED
    except ConfigError as error:
        status, reason = USAGE, error
    except BadConfig as error:
        status, reason = BAD_CONFIG, error
    except ModelError as error:
        status, reason = BAD_DATA, error
    except (RealtimeError, OSError) as error:
        status, reason = UNAVAILABLE, error
    _stderr().print(f"stylewire: {reason}", markup=False)
    return status


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="stylewire", description="Real-time video synthesis, live in a browser."
    )
    top.add_argument("--version", action="version", version=f"stylewire {_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serve_flags(commands.add_parser("serve", help="stream to browsers, with live controls"))
    _record_flags(commands.add_parser("record", help="render a clip into an MP4 file"))
    _doctor_flags(commands.add_parser("doctor", help="what this machine has, and how fast it is"))
    for name, text in OF_MODELS.items():
        commands.add_parser(name, help=text, add_help=False)
    return top


def _serve_flags(sub: argparse.ArgumentParser) -> None:
    server, stream = ServerConfig(), StreamConfig()
    sub.description = "Serve the page and its streams until interrupted."
    sub.add_argument("--host", default=server.host, help=f"address to bind ({server.host})")
    sub.add_argument("--port", type=int, default=server.port, help=f"0: any free ({server.port})")
    sub.add_argument("--codec", choices=CODECS, help="the only one to offer (both)")
    sub.add_argument("--max-sessions", type=int, default=server.max_sessions, metavar="N")
    sub.add_argument("--open", action="store_true", help="open the page in a browser")
    _stream_flags(sub, stream.fps, stream.resolution, stream.bitrate)
    _render_flags(sub)
    sub.set_defaults(run=_serve)


def _record_flags(sub: argparse.ArgumentParser) -> None:
    sub.description = "Render every frame at its exact time, as slowly as it takes."
    sub.add_argument("--out", type=Path, required=True, help="the MP4 file to write")
    sub.add_argument("--seconds", type=float, default=10.0, help="length of the clip (10)")
    sub.add_argument("--seed", type=int, default=0, help="who is seen (0)")
    sub.add_argument("--psi", type=float, default=0.7, help="truncation; 1 is none (0.7)")
    sub.add_argument("--speed", type=float, default=1.0, help="of the motion (1)")
    _stream_flags(sub, 30.0, 256, 4_000_000)
    _render_flags(sub)
    sub.set_defaults(run=_record)


def _doctor_flags(sub: argparse.ArgumentParser) -> None:
    sub.description = "Look at everything a stream needs and measure each shipped model."
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument("--seconds", type=float, default=1.0, help="drawing time per model (1)")
    _render_flags(sub)
    sub.set_defaults(run=_doctor)


def _sample_flags(sub: argparse.ArgumentParser) -> None:
    sub.epilog = (
        "Without --backend, --device and --precision it is drawn by the plain forward on the CPU, "
        "as the published tools do; with any of them as a stream is."
    )
    _backend_flags(sub, None)


def _sample_painter(given: argparse.Namespace) -> Paint | None:
    if not (given.backend or given.device or given.precision):
        return None
    from realtime.sample import painter

    say = lambda text: _stderr().print(text, markup=False)  # noqa: E731
    return painter(given.backend or AUTO, given.device or AUTO, given.precision or AUTO, say)


def _stream_flags(sub: argparse.ArgumentParser, fps: float, side: int, bitrate: int) -> None:
    sub.add_argument("--fps", type=float, default=fps, help=f"frames per second ({fps:g})")
    sub.add_argument(
        "--resolution", type=int, choices=RESOLUTIONS, default=side, help=f"pixels ({side})"
    )
    sub.add_argument(
        "--bitrate", type=_bitrate, default=bitrate, help=f"bit/s, or 2M, 800k ({bitrate})"
    )


def _render_flags(sub: argparse.ArgumentParser) -> None:
    render = RenderConfig()
    sub.add_argument(
        "--model", default=render.model, help="a shipped model, a checkpoint, or a published .pkl"
    )
    _backend_flags(sub, AUTO)
    sub.add_argument("--threads", type=int, default=0, help="for drawing; 0 leaves one core free")
    sub.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice: all")


def _backend_flags(sub: argparse.ArgumentParser, default: str | None) -> None:
    sub.add_argument(
        "--backend",
        default=default,
        help="auto, cuda-graph, triton, compile, tensorrt, eager or cpu (auto)",
    )
    sub.add_argument("--device", default=default, help="auto, cpu, cuda:0 (auto)")
    sub.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=default,
        help="of stored activations; auto: fp16 on CUDA, bf16 on a CPU made for it, else fp32",
    )


def _bitrate(text: str) -> int:
    scale = {"k": 1000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        return round(float(text if scale == 1 else text[:-1]) * scale)
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is no bitrate; write 2000000, 2M or 800k"
        raise argparse.ArgumentTypeError(message) from error


def _serve(given: argparse.Namespace) -> int:
    stream = StreamConfig(
        fps=given.fps,
        resolution=given.resolution,
        codecs=(given.codec,) if given.codec else CODECS,
        bitrate=given.bitrate,
        bitrate_floor=min(StreamConfig.bitrate_floor, given.bitrate),
    )
    config = ServerConfig(
        host=given.host,
        port=given.port,
        max_sessions=given.max_sessions,
        stream=stream,
        render=_render(given),
    )
    from realtime.server import serve  # torch, aiortc: seconds that --help need not cost

    _imported()
    with _stderr().status(f"Warming up {config.render.model} ...") as status:

        def ready(url: str) -> None:
            status.stop()
            print(f"Stylewire is ready: {url}", flush=True)
            if given.open:
                _show(url)

        asyncio.run(serve(config, ready=ready))
    return 0


def _show(url: str) -> None:
    """Open the page in a browser, which may take as long as it likes: nobody waits for it."""

    def show() -> None:
        try:
            shown = webbrowser.open(url)
        except webbrowser.Error:
            shown = False
        if not shown:
            _stderr().print(f"No browser could be opened; open {url} yourself.", markup=False)

    threading.Thread(target=show, name="stylewire-open", daemon=True).start()


def _record(given: argparse.Namespace) -> int:
    from realtime.record import RecordConfig, record

    _imported()
    config = RecordConfig(
        out=given.out,
        seconds=given.seconds,
        seed=given.seed,
        psi=given.psi,
        speed=given.speed,
        fps=given.fps,
        resolution=given.resolution,
        bitrate=given.bitrate,
        render=_render(given),
    )
    with _bar("Warming up") as advance:
        written = 0

        def progress(done: int, total: int) -> None:
            nonlocal written
            written = done
            advance("Recording", done, total)

        try:
            done = asyncio.run(record(config, progress=progress))
        except KeyboardInterrupt:
            kept = f"{config.out} is kept and plays." if written else "no frame was written yet."
            _stderr().print(f"Interrupted; {kept}", markup=False)
            raise
    note = "" if done.model.trained else "; the model's weights are seeded, not trained"
    print(
        f"{done.path}: {done.frames} frames, {done.seconds:.2f} s, {done.bytes / 1e6:.2f} MB{note}"
    )
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from realtime.doctor import examine, table

    _imported()
    with _stderr().status("Looking around ...") as status:
        diagnosis = asyncio.run(
            examine(
                _render(given),
                seconds=given.seconds,
                say=lambda stage: status.update(f"Looking at: {stage} ..."),
            )
        )
    if given.json:
        print(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        console = Console()
        for part in table(diagnosis):
            console.print(part)
        console.print("All is well." if diagnosis.well else "Something essential is missing.")
    return 0 if diagnosis.well else UNAVAILABLE


def _render(given: argparse.Namespace) -> RenderConfig:
    """The configuration of drawing; a foreign file is converted first, once."""
    model, path = given.model, ""
    if _means_a_file(model):
        from models.convert_file import cached
        from models.registry import names

        with _bar(Path(model).name) as advance:
            say = lambda text: _stderr().print(text, markup=False)  # noqa: E731
            report = lambda stage, done: advance(stage, done, 1.0)  # noqa: E731
            path = str(cached(model, say=say, report=report))
        shown = Path(path).name.removesuffix(".json").removesuffix(".safetensors")
        model = f"{shown} (file)" if shown in names() else shown  # viewers see no path
    else:
        from realtime.engine import resolve

        model = resolve(model)
    return RenderConfig(
        model=model,
        path=path,
        backend=given.backend,
        device=given.device,
        precision=given.precision,
        threads=given.threads,
    )


def _means_a_file(model: str) -> bool:
    """A shipped name is that model, whatever lies in this folder; `./NAME` is the file."""
    if any(mark in model for mark in (os.sep, os.altsep) if mark):
        return True
    from models.registry import names

    return model not in (*names(), "default", "testcard") and Path(model).is_file()


def _stderr() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[str, float, float], None]]:
    """A progress bar on stderr while the block runs; call with stage, done and total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = _stderr()
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(name, total=None)
        yield lambda stage, done, total: progress.update(
            task, description=stage, completed=done, total=total
        )


def _version() -> str:
    try:
        return version("stylewire")
    except PackageNotFoundError:  # run from a checkout
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
