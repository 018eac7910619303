"""Kernels compiled in a child process: once, for good, and never at the cost of a stream."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kernels_triton.filtered_lrelu import Resampling
from realtime.backends import cpu_kernels

ROOT = Path(cpu_kernels.__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "kernels"
    folder.mkdir()
    monkeypatch.setattr(cpu_kernels, "cache_folder", lambda: folder)
    return folder


def resampling() -> Resampling:
    """One that no shipped network has, so that nobody has compiled it yet: four taps down."""
    fu, fd = torch.tensor([0.1, 0.2, 0.7] * 4), torch.tensor([0.1, 0.4, 0.4, 0.1])
    return Resampling.of(fu, fd, up=2, pad=5)


def test_the_child_compiles_and_the_next_start_asks_no_child(cache, monkeypatch, caplog) -> None:
    asked = []
    waited_for = cpu_kernels._waited_for

    def counted(child, given, check):
        asked.append(given)
        return waited_for(child, given, check)

    monkeypatch.setattr(cpu_kernels, "_waited_for", counted)
    for _ in range(2):
        cpu_kernels.compile_beside([resampling(), resampling()], torch.float32)
    assert len(asked) == 1 and asked[0].count("up_taps") == 1
    assert [path.name[:9] for path in cache.iterdir()] == ["compiled_"]
    assert "once" in caplog.text
    cpu_kernels.compile_beside([], torch.bfloat16)  # another specification, another child
    assert len(asked) == 2


def test_a_child_that_fails_is_said_and_asked_again(cache, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cpu_kernels.sys, "executable", "/bin/false")
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert "no kernels were compiled" in caplog.text
    monkeypatch.setattr(cpu_kernels.sys, "executable", "/no/such/file")
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert "FileNotFoundError" in caplog.text
    assert list(cache.iterdir()) == []


def test_without_a_lasting_cache_no_child_is_asked(monkeypatch, tmp_path) -> None:
    """A child would compile into a folder of its own, and all of it again here."""
    monkeypatch.setattr(cpu_kernels.tempfile, "gettempdir", lambda: str(tmp_path))
    private = tmp_path / "stylewire-kernels-x"
    private.mkdir()
    monkeypatch.setattr(cpu_kernels, "cache_folder", lambda: private)
    monkeypatch.setattr(cpu_kernels.subprocess, "Popen", lambda *a, **k: pytest.fail("a child"))
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert not private.exists()


class Unwanted(Exception):
    """Nobody waits for the kernels any more."""


@pytest.fixture
def children(monkeypatch):
    """Every child that is started."""
    started = []

    class Kept(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(cpu_kernels.subprocess, "Popen", Kept)
    return started


def script(folder, lines):
    """A program that does these instead of compiling."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\ncd {shlex.quote(str(folder))}\n{lines}\n")
    file.chmod(0o755)
    return str(file)


def until(file):
    """A check that raises once the child has made this file."""

    def check():
        if file.exists():
            raise Unwanted

    return check


def test_a_child_that_compiles_is_ended_when_nobody_wants_it(cache, children) -> None:
    calls = []

    def check():
        calls.append(time.monotonic())
        if len(calls) == 3:
            raise Unwanted

    with pytest.raises(Unwanted):
        cpu_kernels.compile_beside([resampling()], torch.float32, check)
    assert time.monotonic() - calls[-1] < 5
    (child,) = children
    assert child.returncode == -signal.SIGTERM  # ended and reaped
    assert child.stdin.closed and child.stderr.closed
    assert list(cache.iterdir()) == []  # the next start asks again


def test_a_child_that_does_not_listen_is_killed(cache, children, tmp_path, monkeypatch) -> None:
    deaf = script(tmp_path, "trap '' TERM; touch up; while :; do sleep 0.05; done")
    monkeypatch.setattr(cpu_kernels.sys, "executable", deaf)
    with pytest.raises(Unwanted):
        cpu_kernels.compile_beside([resampling()], torch.float32, until(tmp_path / "up"))
    assert [child.returncode for child in children] == [-signal.SIGKILL]


def test_a_child_that_never_ends_is_given_up(cache, children, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cpu_kernels, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(cpu_kernels.sys, "executable", script(tmp_path, "exec sleep 600"))
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert "in 0.3 s" in caplog.text and list(cache.iterdir()) == []
    assert [child.returncode for child in children] == [-signal.SIGTERM]


def test_a_child_may_say_more_than_a_pipe_holds(cache, tmp_path, monkeypatch, caplog) -> None:
    talk = "head -c 1000000 /dev/zero | tr '\\0' x >&2; sleep 0.3; echo the end >&2; exit 3"
    monkeypatch.setattr(cpu_kernels.sys, "executable", script(tmp_path, talk))
    cpu_kernels.compile_beside([resampling()], torch.float32)
    assert "xxx" in caplog.text and "the end" in caplog.text


def test_a_terminals_ctrl_c_is_not_the_childs(cache, children) -> None:
    """It would end early, seem to have failed, and all would be compiled in this process."""

    def check():
        assert os.getpgid(children[0].pid) == children[0].pid != os.getpgid(0)
        raise Unwanted

    with pytest.raises(Unwanted):
        cpu_kernels.compile_beside([resampling()], torch.float32, check)


def test_no_child_outlives_a_process_that_just_ends(tmp_path) -> None:
    """The thread that waits for it is a daemon: nobody asks it to stop."""
    program = script(tmp_path, "echo $$ > part; mv part pid; exec sleep 600")
    code = f"""
import sys, threading, time
from pathlib import Path
import torch
from realtime.backends import cpu_kernels
sys.executable = {program!r}
threading.Thread(target=cpu_kernels.compile_beside, args=([], torch.float32), daemon=True).start()
while not Path({str(tmp_path / "pid")!r}).exists():
    time.sleep(0.01)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
