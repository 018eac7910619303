"""The loop on a real small problem: it learns, and a run cut in two is the run in one piece."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.errors import BadCheckpoint, BadConfig
from models.training import loop as loop_module
from models.training import run_state
from models.training.config import TrainConfig
from models.training.contracts import Trainer
from models.training.draws import Draws
from models.training.loop import DiskFull, Loop, Outcome
from models.training.report import Quiet
from models.training.run_dir import RunDir

from .tiny import Blobs, Painting, config


class Heard(Quiet):
    """Remembers what was said, and can act after a step."""

    def __init__(self, after=lambda progress: None) -> None:
        self.lines: list[str] = []
        self.ticks: list[dict[str, float]] = []
        self._after = after

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, progress) -> None:
        self._after(progress)

    def tick(self, progress, figures) -> None:
        self.ticks.append(figures)


def train(
    where: Path, plan: TrainConfig, trainer: Trainer | None = None, heard: Heard | None = None
) -> tuple[Outcome, Trainer]:
    trainer = trainer or Painting(plan)
    heard = heard or Heard()
    where.mkdir(exist_ok=True)
    done = Loop(plan, trainer, Blobs(), RunDir(where, heard.say), heard).run()
    return done, trainer


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def interrupted_at(step: int) -> Heard:
    return Heard(lambda done: done.step == step and signal.raise_signal(signal.SIGTERM))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_lowers_the_loss_of_a_fixed_batch(tmp_path):
    plan = config(total_kimg=16 * 100 / 1000)
    trainer = Painting(plan)
    batch = Blobs().clips(trainer.requests(Draws(99, 0, 0)))
    truth = batch.frames.flatten(0, 1).flatten(1) / 255.0

    def loss(average: bool) -> float:
        trainer.networks["paint"].eval(), trainer.averages["paint"].eval()
        with torch.no_grad():
            found = float((trainer.paint(batch, average) - truth).square().mean())
        trainer.networks["paint"].train()
        return found

    before = loss(False)
    done, _ = train(tmp_path, plan, trainer)
    assert done.progress.step == 100 and done.progress.images == 1600
    assert loss(False) < 0.15 * before
    assert loss(True) < 0.15 * before


@pytest.mark.parametrize("cut", [1, 12, 19])
def test_a_run_that_was_interrupted_and_resumed_is_bit_equal(tmp_path, cut):
    plan = config()
    _, whole = train(tmp_path / "whole", plan)
    first, _ = train(tmp_path / "cut", plan, heard=interrupted_at(cut))
    assert first.interrupted and first.progress.step == cut
    second, resumed = train(tmp_path / "cut", plan)
    assert not second.interrupted and second.progress.step == 20
    found, wanted = run_state.collect(resumed), run_state.collect(whole)
    assert equal(found, wanted)
    assert {"opt/judge/2.weight/exp_avg_sq", "ema/paint/2.running_mean", "aux/p"} <= set(wanted)
    assert float(wanted["aux/p"]) > 0


def test_ticks_and_snapshots_change_nothing(tmp_path):
    _, rare = train(tmp_path / "rare", config())
    often = Heard()
    _, ticked = train(
        tmp_path / "often", config(tick_s=1e-9, snapshot_s=1e-9, tick_kimg=1.0), heard=often
    )
    assert equal(run_state.collect(rare), run_state.collect(ticked))
    assert len(often.ticks) == 20


def test_a_tick_comes_by_frames_too_and_holds_means(tmp_path):
    heard = Heard()
    train(tmp_path, config(tick_kimg=0.08), heard=heard)  # five steps
    assert len(heard.ticks) == 4
    assert set(heard.ticks[0]) == {
        "paint/loss",
        "judge/loss",
        "smooth/loss",
        "mended",
        "frames_per_second",
    }


def test_another_seed_is_another_run(tmp_path):
    plan = config()
    _, one = train(tmp_path / "one", plan)
    other = TrainConfig.from_dict({**plan.to_dict(), "seed": 4})
    trainer = Painting(plan)  # equal weights to begin with
    _, two = train(tmp_path / "two", other, trainer)
    assert not equal(run_state.collect(one), run_state.collect(two))


def test_phases_train_their_network_alone(tmp_path):
    plan = config(total_kimg=0.016)
    trainer = Painting(plan)
    trainer.phases = trainer.phases[:1]
    before = {k: v.clone() for k, v in run_state.collect(trainer).items()}
    train(tmp_path, plan, trainer)
    after = run_state.collect(trainer)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and not any("judge" in key for key in changed)
    assert all(p.grad is None for n in trainer.networks.values() for p in n.parameters())
    assert all(p.requires_grad for n in trainer.networks.values() for p in n.parameters())


def test_frozen_parameters_stay_frozen(tmp_path):
    plan = config(total_kimg=0.016 * 3)
    trainer = Painting(plan)
    frozen = trainer.networks["paint"][0].weight.requires_grad_(False)
    before = frozen.clone()
    train(tmp_path, plan, trainer)
    assert torch.equal(frozen, before) and not frozen.requires_grad
    assert "opt/paint/0.weight/exp_avg" not in run_state.collect(trainer)


def test_gradients_that_are_no_numbers_are_mended_and_counted(tmp_path):
    plan = config(total_kimg=0.016)
    trainer, heard = Painting(plan), Heard()
    accumulate = trainer.accumulate

    def poisoned(phase, batch, draws, share):
        found = accumulate(phase, batch, draws, share)
        if phase.name == "judge" and draws.micro == 3:
            trainer.networks["judge"][0].bias.grad[:3] = torch.tensor(
                [float("nan"), float("inf"), float("-inf")]
            )
        return found

    trainer.accumulate = poisoned
    train(tmp_path, plan, trainer, heard)
    assert heard.ticks[0]["mended"] == 3
    assert all(torch.isfinite(t).all() for t in run_state.collect(trainer).values())


def test_a_diverged_run_stops_and_keeps_its_last_whole_state(tmp_path):
    plan = config(tick_s=1e-9)
    trainer = Painting(plan)

    def after(progress):
        if progress.step == 5:
            with torch.no_grad():
                trainer.networks["paint"][0].weight[0, 0] = float("nan")

    with pytest.raises(BadCheckpoint, match="CKPT_NONFINITE"):
        train(tmp_path, plan, trainer, Heard(after))
    progress, _, _ = run_state.load(tmp_path)
    assert progress.step == 4


def test_states_that_cannot_be_written_stop_the_run_with_advice(tmp_path, monkeypatch):
    def full(*args, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop_module.run_state, "save", full)
    heard = Heard()
    with pytest.raises(DiskFull, match=r"free \d+ MB in .* --resume"):
        train(tmp_path, config(tick_s=1e-9), heard=heard)
    assert len(heard.ticks) == loop_module.MOST_FAILED_SAVES
    assert "NOT saved: No space left" in heard.lines[0]


def test_a_save_that_failed_once_is_forgotten(tmp_path, monkeypatch):
    save, calls = run_state.save, []

    def flaky(*args, **named):
        calls.append(1)
        if len(calls) % 3:  # two of three fail: never three in a row
            raise OSError(28, "No space left on device")
        return save(*args, **named)

    monkeypatch.setattr(loop_module.run_state, "save", flaky)
    plan = config(tick_s=1e-9, total_kimg=0.016 * 12)
    done, _ = train(tmp_path, plan)
    assert done.progress.step == 12 and run_state.load(tmp_path)[0].step == 12


def test_a_run_that_is_done_does_nothing_more(tmp_path):
    plan = config(total_kimg=0.032)
    train(tmp_path, plan)
    heard = Heard()
    done, _ = train(tmp_path, plan, heard=heard)
    assert done.progress.step == 2 and heard.ticks == []


def test_a_longer_total_goes_on(tmp_path):
    train(tmp_path / "a", config(total_kimg=0.016 * 7))
    _, longer = train(tmp_path / "a", config())
    _, whole = train(tmp_path / "b", config())
    assert equal(run_state.collect(longer), run_state.collect(whole))


def test_micro_batches_that_do_not_spread_are_refused(tmp_path):
    from models.training.distributed import Ranks

    plan = config()
    with pytest.raises(BadConfig, match="4 micro-batches .* 3 processes"):
        Loop(
            plan, Painting(plan), Blobs(), RunDir(tmp_path, print), Quiet(), Ranks(rank=0, world=3)
        )


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train(tmp_path, config(total_kimg=0.016))
    assert signal.getsignal(signal.SIGINT) is before


def test_it_runs_outside_of_the_main_thread(tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(train(tmp_path, config(total_kimg=0.016)))
    )
    thread.start()
    thread.join()
    assert found[0][0].progress.step == 1


def test_an_error_of_the_data_ends_the_run_as_itself(tmp_path):
    class Broken(Blobs):
        def clips(self, requests):
            raise ValueError("frame 3 of video 2")

    plan = config()
    with pytest.raises(ValueError, match="frame 3 of video 2"):
        Loop(plan, Painting(plan), Broken(), RunDir(tmp_path, print), Quiet()).run()
