"""What a run tells people and files."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch
from rich.console import Console

from models.errors import ModelError
from models.training.config import TrainConfig
from models.training.pictures import write_grid
from models.training.report import Terminal, duration
from models.training.run_dir import RunDir
from models.training.run_state import Progress

from .tiny import config


def terminal(tmp_path, *, wide: bool = False) -> tuple[Terminal, io.StringIO, RunDir]:
    heard = io.StringIO()
    console = Console(file=heard, force_terminal=wide, width=120, soft_wrap=True)
    folder = RunDir(tmp_path, lambda line: heard.write(line + "\n"))
    return Terminal(config(), folder, console), heard, folder


def test_a_tick_goes_to_people_and_to_the_files(tmp_path):
    report, heard, _ = terminal(tmp_path)
    with report.shown():
        for step in range(1, 5):
            report.advance(Progress(step, step * 16, step * 0.5))
        report.tick(Progress(4, 64, 2.0), {"G/loss": 0.25, "frames_per_second": 32.0})
    said = heard.getvalue()
    assert "step 4" in said and "32.0 frames/s" in said and "G/loss 0.25" in said
    assert "0:00:08 left" in said  # 16 steps of 16 frames at 32 a second
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["step"] == 4 and found["figures"]["G/loss"] == 0.25
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_the_line_that_moves_is_there_in_a_terminal(tmp_path):
    report, heard, _ = terminal(tmp_path, wide=True)
    with report.shown():
        report.advance(Progress(1, 16, 1.0))
        report.advance(Progress(2, 32, 2.0))
    assert "step 2/20" in heard.getvalue() and "16.0 frames/s" in heard.getvalue()


def test_figures_that_are_no_numbers_are_null_in_json(tmp_path):
    report, heard, _ = terminal(tmp_path)
    report.tick(Progress(1, 16, 1.0), {"loss": math.nan, "mended": 2.0, "frames_per_second": 1.0})
    found = json.loads((tmp_path / "log.jsonl").read_text())
    assert found["figures"]["loss"] is None
    assert "2 gradients a step were no numbers" in heard.getvalue()


def test_files_that_cannot_be_written_are_said_once_and_counted(tmp_path):
    report, heard, folder = terminal(tmp_path / "gone")
    for step in (1, 2, 3):
        report.tick(Progress(step, step, 1.0), {"loss": 1.0, "frames_per_second": 1.0})
    assert folder.lost == {"log.jsonl": 3, "TensorBoard events": 3}
    assert heard.getvalue().count("log.jsonl not written") == 1
    assert "training goes on" in heard.getvalue()


def test_a_log_line_that_was_cut_off_is_ended_first(tmp_path):
    folder = RunDir(tmp_path, print)
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"st')
    folder.append_line("log.jsonl", '{"step": 2}')
    folder.append_line("log.jsonl", '{"step": 3}')
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines == ['{"step": 1}', '{"st', '{"step": 2}', '{"step": 3}']


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "0:01:00"), (90061, "1 day, 1:01:01")])
def test_durations_are_read_by_people(seconds, text):
    assert duration(seconds) == text
    assert duration(math.inf) == "?"


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    plan = config()
    with RunDir(tmp_path, print).opened(plan, resume=False):
        with pytest.raises(ModelError, match="another process"):
            with RunDir(tmp_path, print).opened(plan, resume=True):
                pass
    with RunDir(tmp_path, print).opened(plan, resume=False):
        pass  # given back; no state, so nothing is in the way


def test_a_torn_configuration_is_named(tmp_path):
    with RunDir(tmp_path, print).opened(config(), resume=False):
        pass
    (tmp_path / "state-00000001.json").write_text("{}")
    (tmp_path / "config.toml").write_text("[[[")
    with pytest.raises(ModelError, match="config.toml is not TOML"):
        with RunDir(tmp_path, print).opened(config(), resume=True):
            pass


def test_the_written_configuration_is_the_newest(tmp_path):
    for total in (0.1, 0.2):
        with RunDir(tmp_path, print).opened(config(total_kimg=total), resume=True):
            pass
    import tomllib

    found = TrainConfig.from_dict(tomllib.loads((tmp_path / "config.toml").read_text()))
    assert found.run.total_kimg == 0.2


def test_grids_are_rows_and_columns(tmp_path):
    import cv2

    grid = torch.zeros(2, 3, 3, 4, 4, dtype=torch.uint8)
    grid[1, 2, 0] = 200  # red, bottom right
    write_grid(tmp_path / "grid.png", grid)
    found = cv2.imread(str(tmp_path / "grid.png"))
    assert found.shape == (8, 12, 3)
    assert (found[4:, 8:] == [0, 0, 200]).all()
    assert found.sum() == 200 * 16
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
