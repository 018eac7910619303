"""fps.py: rows are consistent, the seeded sizes build, and what is random says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import fps, harness
from models.checkpoint_config import check_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", [*fps.CPU_SIZES, *fps.GPU_SIZES])
def test_every_seeded_size_is_a_configuration_the_loader_accepts(name: str) -> None:
    recipe = {**fps.CPU_SIZES, **fps.GPU_SIZES}[name]
    check_config(recipe.family, recipe.config)


def test_a_row_agrees_with_itself() -> None:
    said: list[str] = []
    ways = fps.backends("cpu")
    (row,) = fps.rows(["stylegan2-128"], ways[:1], [64], 0.1, said.append)
    assert row["trained"] is False and row["resolution"] == 64 and row["native_resolution"] == 128
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert row["fps"] >= 1000 / row["max_ms"]
    assert row["gflop_per_s"] == pytest.approx(row["gflop_per_frame"] * row["fps"], rel=0.02)
    assert row["frames"] >= harness.MIN_SAMPLES
    assert said == [f"stylegan2-128, {ways[0].name}, 64x64 ..."]
    assert "random weights" in fps.table([row])


def test_backends_are_those_that_run_here_once_each() -> None:
    names = [backend.name for backend in fps.backends("cpu")]
    assert names and len(set(names)) == len(names)


def test_sizes_are_parsed_or_refused() -> None:
    assert fps.parser().parse_args(["--resolutions", "256,512"]).resolutions == [256, 512]
    with pytest.raises(SystemExit):
        fps.parser().parse_args(["--resolutions", "255"])


def test_runs_as_a_file_from_elsewhere_and_writes_its_envelope(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "fps.py", "--models", "stylegan2-128", "--seconds", "0.1"]
        + ["--device", "cpu", "--threads", "1", "--json", out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("machine   ") and "random weights" in done.stdout
    content = harness.read_json(out)
    assert content["benchmark"] == "fps" and content["machine"]["torch_threads"] == 1
    assert content["command"].startswith("python bench/fps.py --models stylegan2-128")
    assert str(tmp_path) not in json.dumps(content)


def test_an_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert fps.main(["--models", "nobody", "--device", "cpu"]) == 2
    assert "nobody" in capsys.readouterr().err
