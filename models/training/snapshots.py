"""What a run shows of itself now and then: sample pictures, clips, and models that can be used."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from models.training.config import TrainConfig
from models.training.contracts import SampleSheet, Trainer
from models.training.run_dir import RunDir
from models.training.run_state import Progress

_SUFFIXES = (".safetensors", ".json")


class Snapshots:
    """Writes samples/ and model-* of a run, softly: a full disk costs the picture, not the run.

    Args:
        config, trainer, folder: Of the run.
    """

    def __init__(self, config: TrainConfig, trainer: Trainer, folder: RunDir) -> None:
        self._config = config
        self._trainer = trainer
        self._folder = folder
        self.best: float | None = None  # greatest score so far, where the trainer gives any

    def take(self, progress: Progress, *, pictures: bool = True) -> None:
        """Pictures and model of this moment; without pictures nobody judges it either."""
        name = f"{progress.step:08d}"
        sheet = self._trainer.samples() if pictures else SampleSheet()
        samples = self._folder.path / "samples"
        if sheet.grid is not None or sheet.clips is not None:
            with self._folder.soft("sample pictures"):
                samples.mkdir(exist_ok=True)
                _draw(sheet, samples, name)
        with self._folder.soft("model"):
            self._trainer.export(self._folder.path / f"model-{name}", self._meta(progress))
            if sheet.score is not None and (self.best is None or sheet.score > self.best):
                self._trainer.export(self._folder.path / "model-best", self._meta(progress))
                self.best = sheet.score
            self._remove_old()

    def _meta(self, progress: Progress) -> dict[str, Any]:
        return {
            "trained": True,
            "fps": self._config.data.fps,
            "recipe": {
                "system": self._config.system,
                "config": self._config.sha,
                "seed": self._config.seed,
                "step": progress.step,
                "kimg": progress.images / 1000,
                "commit": commit(),
            },
        }

    def _remove_old(self) -> None:
        for path in models_of(self._folder.path)[self._config.run.keep_states :]:
            for suffix in _SUFFIXES:
                path.with_suffix(suffix).unlink(missing_ok=True)


def models_of(folder: Path) -> list[Path]:
    """JSON files of a run's models, the newest first; `model-best` is not among them."""
    found = folder.glob("model-[0-9]*.json")
    return sorted(found, key=lambda path: int(path.stem.removeprefix("model-")), reverse=True)


def _draw(sheet: SampleSheet, samples: Path, name: str) -> None:
    # On demand: pictures and clips need OpenCV and PyAV, training does not.
    if sheet.grid is not None:
        from models.training.pictures import write_grid

        write_grid(samples / f"grid-{name}.png", sheet.grid)
    if sheet.clips is not None:
        from models.training.video_file import write_clips

        write_clips(samples / f"clip-{name}.mp4", sheet.clips, sheet.fps)


def commit() -> str | None:
    """Of the checkout this runs from, where it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
