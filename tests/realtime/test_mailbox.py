"""One slot, newest wins, nothing lost silently."""

import asyncio
import threading
import time

import pytest

from realtime.mailbox import Mailbox, MailboxClosed, ThreadMailbox


async def test_the_newest_item_wins_and_the_old_one_comes_back():
    box = Mailbox()
    assert [box.put(k) for k in "abc"] == [None, "a", "b"]
    assert box.overwritten == 2
    assert await box.get() == "c"
    assert box.get_nowait() is None and len(box) == 0


async def test_get_waits_for_put():
    box = Mailbox()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(box.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        box.put(7)
    assert waiting.result() == 7


async def test_a_cancelled_get_loses_nothing():
    box = Mailbox()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(box.get())
        await asyncio.sleep(0)
        box.put(1)  # the waiter is woken, but cancelled before it runs
        waiting.cancel()
    assert waiting.cancelled()
    assert await box.get() == 1


async def test_each_item_reaches_one_reader():
    box = Mailbox()
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(box.get()) for _ in range(2)]
        await asyncio.sleep(0)
        box.put(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        box.put(2)
    assert sorted(reader.result() for reader in readers) == [1, 2]


def test_threads_pass_items_and_close_ends_the_reader():
    box = ThreadMailbox()
    got = []

    def read():
        try:
            while True:
                got.append(box.get())
        except MailboxClosed:
            got.append("closed")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert box.put(1) is None
    deadline = time.monotonic() + 20
    while not got and time.monotonic() < deadline:
        time.sleep(0.001)
    box.close()
    thread.join(20)
    assert got == [1, "closed"]


def test_thread_mailbox_hands_back_what_will_not_be_delivered():
    box = ThreadMailbox()
    assert box.put("old") is None
    assert box.put("new") == "old"
    assert box.close() == "new"
    assert box.put("late") == "late"
    assert box.overwritten == 1
    with pytest.raises(MailboxClosed):
        box.get()


def test_a_closed_box_ends_every_reader():
    box, ended = ThreadMailbox(), []

    def read():
        with pytest.raises(MailboxClosed):
            box.get()
        ended.append(1)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    box.close()
    assert box.close() is None
    for thread in threads:
        thread.join(20)
    assert len(ended) == 3


def test_no_item_is_both_delivered_and_handed_back():
    box, taken, returned, count = ThreadMailbox(), [], [], 20_000

    def read():
        try:
            while True:
                taken.append(box.get())
        except MailboxClosed:
            pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    for k in range(1, count + 1):
        old = box.put(k)
        if old is not None:
            returned.append(old)
    left = box.close()
    thread.join(20)
    returned += [left] if left is not None else []
    assert sorted(taken + returned) == list(range(1, count + 1))
    assert taken == sorted(taken)
