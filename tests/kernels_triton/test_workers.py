"""Threads for CPU kernels: every task once, errors to the caller, no work while there is none."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from kernels_triton.workers import shared


@pytest.fixture(autouse=True)
def torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Recorder:
    def __init__(self):
        self.parts, self.threads = [], []

    def __call__(self, begin, end):
        self.parts.append((begin, end))
        self.threads.append(threading.current_thread())


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 100])
def test_every_task_is_done_once(tasks):
    record = Recorder()
    shared(record, tasks)
    done = [task for begin, end in sorted(record.parts) for task in range(begin, end)]
    assert done == list(range(tasks))
    assert len(record.parts) == max(1, min(tasks, 3))


def test_as_many_threads_as_torch_has():
    together = threading.Barrier(3, timeout=10)  # passes only with three at once
    shared(lambda begin, end: together.wait(), 3)
    torch.set_num_threads(1)
    record = Recorder()
    shared(record, 100)
    assert record.threads == [threading.current_thread()] and record.parts == [(0, 100)]


def test_arguments_come_first():
    seen = []
    shared(lambda a, b, begin, end: seen.append((a, b, begin, end)), 2, "a", "b")
    assert sorted(seen) == [("a", "b", 0, 1), ("a", "b", 1, 2)]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_error_reaches_the_caller_after_all_parts_have_ended(part):
    ended = []

    def kernel(begin, end):
        if begin == part:
            raise ValueError(f"part {begin}")
        time.sleep(0.02)
        ended.append(begin)

    with pytest.raises(ValueError, match=f"part {part}"):
        shared(kernel, 3)
    assert len(ended) == 2
    record = Recorder()
    shared(record, 3)  # the workers go on
    assert len(record.parts) == 3


def test_workers_are_kept_and_callers_do_not_wait_for_each_other():
    for _ in range(5):
        shared(Recorder(), 3)
    few = threading.active_count()
    for _ in range(5):
        shared(Recorder(), 3)
    assert threading.active_count() == few
    together = threading.Barrier(6, timeout=10)  # two callers, three threads each
    other = threading.Thread(target=shared, args=(lambda begin, end: together.wait(), 3))
    other.start()
    shared(lambda begin, end: together.wait(), 3)
    other.join()
    assert threading.active_count() <= few + 2


def test_a_kernel_may_share_its_own_work():
    record = Recorder()
    shared(lambda begin, end: shared(record, 3), 3)
    assert len(record.parts) == 9


def test_waiting_threads_do_not_spin():
    shared(Recorder(), 3)
    begin = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - begin < 0.05
    begin = time.process_time()
    shared(lambda begin, end: time.sleep(0.2 if begin == 1 else 0), 3)  # nor does the caller
    assert time.process_time() - begin < 0.05


FORK = """
import os, signal, torch
from kernels_triton.workers import shared
torch.set_num_threads(3)
shared(lambda begin, end: None, 3)
child = os.fork()
if child == 0:
    signal.alarm(20)  # a worker that does not exist here would be waited for without end
    seen = []
    shared(lambda begin, end: seen.append(begin), 3)
    os._exit(len(seen))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_makes_its_own():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"
