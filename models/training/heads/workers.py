"""Worker processes that draw clips, each with heads of its own.

Processes, because a renderer is one thread's and Python's part of a frame would hold the others up.
Spawned, never forked: torch's threads may exist. Arrays come back through pipes as plain bytes and
are read into the place where they are wanted: that costs the receiver 0.4 ms for a frame of 256
pixels, where drawing it takes 20, and no shared memory is left behind by a process that is killed.
Workers import no torch.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

import numpy as np

from models.errors import ModelError

if TYPE_CHECKING:
    from models.training.heads.clip_painter import Recipe

Place = Callable[[int, str], memoryview]  # (number of the job, field): where its bytes go
Job = tuple[int, int, tuple[float, ...]]  # number, video, times
_PATIENCE_S = 5.0  # for a worker that is told to end
_READY, _DONE, _FAILED = b"ready", b"done", b"failed"


class WorkerFailed(ModelError):
    """A worker process ended or raised; the message holds its traceback."""


def _work(pipe: Connection, recipe: Recipe, keep: int) -> None:
    """The worker's side: job after job until the pipe closes."""
    # Ctrl-C reaches the whole group; whoever started this finishes its step first, with our clips.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import cv2

        cv2.setNumThreads(1)
        from models.training.heads.clip_painter import ClipPainter, fields

        painter = ClipPainter(recipe, keep)
        painter.paint(0, (0.0,))  # compiles, or loads what is compiled
        pipe.send_bytes(_READY)
        while (jobs := pipe.recv()) is not None:
            for number, video, times in jobs:
                clip = painter.paint(video, times)
                pipe.send_bytes(_DONE + number.to_bytes(8, "little"))
                for name in fields(len(times), recipe.resolution):
                    pipe.send_bytes(np.ascontiguousarray(getattr(clip, name)).data.cast("B"))
    except (EOFError, BrokenPipeError):
        pass  # whoever started this is gone, or goes
    except Exception:  # the task's outer edge: told to the other side, which raises it
        try:
            pipe.send_bytes(_FAILED + traceback.format_exc().encode())
        except OSError:
            pass
    finally:
        pipe.close()


class Workers:
    """Some processes that draw clips of one recipe.

    The first one is started alone, so that the others find compiled kernels on disk instead of
    compiling them all at once.

    Resource handling: `close` ends them, also those that hang.

    Args:
        recipe: Of the clips.
        count: Of processes.
        keep: People that each remembers.
    Raises:
        WorkerFailed: One could not start.
    """

    def __init__(self, recipe: Recipe, count: int, keep: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._recipe = recipe
        try:
            for k in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, recipe, keep), name=f"heads-{k}", daemon=True
                )
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
                if k == 0:
                    self._read(0)
            for k in range(1, count):
                self._read(k)
        except BaseException:
            self.close()
            raise

    def draw(self, shares: Sequence[Sequence[Job]], place: Place) -> None:
        """Has worker k draw `shares[k]`, all at once, and puts every array in its place.

        Raises:
            WorkerFailed: One raised or ended. No further call will work.
        """
        from models.training.heads.clip_painter import fields

        open_jobs = {job[0]: job for share in shares for job in share}
        for k, share in enumerate(shares):
            if share:
                self._send(k, list(share))
        waiting = {self._pipes[k]: len(share) for k, share in enumerate(shares) if share}
        while waiting:
            for pipe in wait(list(waiting)):
                assert isinstance(pipe, Connection)
                k = self._pipes.index(pipe)
                number = int.from_bytes(self._read(k), "little")
                count = len(open_jobs[number][2])
                for name in fields(count, self._recipe.resolution):
                    self._pipes[k].recv_bytes_into(place(number, name))
                waiting[pipe] -= 1
                if not waiting[pipe]:
                    del waiting[pipe]

    def close(self) -> None:
        """Ends all of them; a second call does nothing."""
        for pipe in self._pipes:
            try:
                pipe.send(None)
            except OSError:
                pass
        for process in self._processes:
            process.join(_PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._processes = [], []

    def _send(self, k: int, jobs: list[Job]) -> None:
        try:
            self._pipes[k].send(jobs)
        except OSError as error:
            raise self._ended(k) from error

    def _read(self, k: int) -> bytes:
        """What follows the word of the next message."""
        try:
            message = self._pipes[k].recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended(k) from error
        if message.startswith(_FAILED):
            text = message.removeprefix(_FAILED).decode()
            raise WorkerFailed(f"worker {k} for rendered heads failed:\n{text}")
        return message.removeprefix(_DONE if message.startswith(_DONE) else _READY)

    def _ended(self, k: int) -> WorkerFailed:
        self._processes[k].join(_PATIENCE_S)
        return WorkerFailed(
            f"worker {k} for rendered heads ended with status {self._processes[k].exitcode} and"
            " said nothing (killed, or out of memory?); start again with fewer workers"
        )
