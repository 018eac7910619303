"""The rows of bench/fps.py: every way of drawing one model, checked, then timed in turn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import blocks, harness
from bench.systems import load


class Plan:
    """What is measured, and how long. Says what it does and collects what goes wrong."""

    def __init__(
        self,
        device: str,
        ways: Sequence[str],
        resolutions: Sequence[int] = (),
        *,
        seconds: float = 2.0,
        rounds: int = blocks.BLOCKS,
        against: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.device, self.ways, self.resolutions = device, list(ways), list(resolutions)
        self.seconds, self.rounds, self.against, self.say = seconds, rounds, against, say
        self.absent: list[str] = []  # what did not run here, and why
        self.wrong: list[str] = []  # what drew another picture
        self.parts: dict[str, Any] = {}  # by model: its work, None where it is not known

    def prepare(self, name: str) -> tuple[Any, list[Any], list[Any]]:
        """A system, its baselines and its subjects, all checked."""
        import torch

        from bench import fidelity, subjects

        system, place = load(name, self.device), torch.device(self.device)
        truth = fidelity.Truth(system, place)
        makers: list[Callable[[], Any]] = [
            lambda: subjects.official_order(system, truth, place),
            *([lambda: subjects.official_order_graph(system, place)] * (place.type == "cuda")),
        ]
        bases = [base for make in makers if (base := self._made(name, make)) is not None]
        bases += self._published(name, system, truth, place)
        sizes = self.resolutions or [system.resolution]
        made = []
        for way in self.ways:
            draw = functools.partial(
                subjects.subject, way, system, truth, device=self.device, sizes=sizes
            )
            made.append(self._made(name, draw))
        return system, bases, [one for one in made if one is not None]

    def _made(self, name: str, make: Callable[[], Any]) -> Any:
        from bench.fidelity import Unfaithful
        from bench.subjects import Absent

        try:
            return make()
        except Absent as error:
            self.absent.append(f"{name}: {error}")
        except Unfaithful as error:
            self.wrong.append(f"{name}: {error}")
        return None

    def _published(self, name: str, system: Any, truth: Any, place: Any) -> list[Any]:
        against = self.against
        if against is None:
            return []
        from bench.published import published

        self.say(f"{name}: the published code ...")
        theirs = self._made(name, lambda: published(against, name, system, truth, place))
        if theirs is None:
            return []
        graph = self._made(name, theirs.graph) if place.type == "cuda" else None
        return [base for base in (theirs.eager(), graph) if base is not None]

    def rows(self, name: str, deadline_ns: int | None = None) -> list[dict]:
        """Every row of one model, the baselines first; without their rooflines."""
        import torch

        self.say(f"{name}: checking pictures ...")
        system, bases, made = self.prepare(name)
        calls = {base.name: base.frame for base in bases}
        calls |= {f"{s.name} {size}": f for s in made for size, f in s.frames.items()}
        sync = torch.cuda.synchronize if self.device.startswith("cuda") else None
        self.say(f"{name}: timing {', '.join(calls)} ...")
        frames = {
            key: blocks.frames_per_block(call, self.seconds / self.rounds, sync)
            for key, call in calls.items()
        }
        timed = blocks.interleave(
            calls,
            frames=frames,
            blocks=self.rounds,
            sync=sync,
            deadline_ns=deadline_ns,
        )
        about = _About(name, system, self.device, timed)
        self.parts[name] = about.parts
        found = [about.baseline(base) for base in bases]
        found += [about.subject(s, size) for s in made for size in s.frames]
        return found


class _About:
    """What the rows of one model have in common."""

    def __init__(
        self, name: str, system: Any, device: str, timed: Mapping[str, blocks.Timed]
    ) -> None:
        from bench import work

        self.name, self.system, self.device = name, system, device
        self.timed = timed
        self.parts = work.parts_of(system.synthesizer)

    def baseline(self, base: Any) -> dict[str, Any]:
        row = self._row(base.name, base.name, "", self.system.resolution, base.frame)
        return {**row, "baseline": True, "psnr_db": _rounded(base.psnr), "i420_psnr_db": None}

    def subject(self, subject: Any, size: int) -> dict[str, Any]:
        key = f"{subject.name} {size}"
        row = self._row(key, subject.backend, subject.precision, size, subject.frames[size])
        row |= {
            "psnr_db": _rounded(subject.psnr),
            "i420_psnr_db": _rounded(subject.sent_psnr[size]),
        }
        for field, word in (
            ("vs_official", "official order"),
            ("vs_official_graph", "official order, CUDA graph"),
            ("vs_compile", f"compile {size}"),
        ):
            base = self.timed.get(word)
            row[field] = None if base is None or word == key else self._against(base, key)
        row["vs_published"] = {
            word: self._against(base, key)
            for word, base in self.timed.items()
            if word.startswith("published")
        }
        return row

    def _against(self, base: blocks.Timed, key: str) -> dict[str, float]:
        return blocks.ratio(base, self.timed[key]).as_dict()

    def _row(
        self, key: str, backend: str, precision: str, size: int, frame: Callable[[], object]
    ) -> dict[str, Any]:
        from bench import launches, work
        from bench.ceilings import WIDTHS

        dtype = stored_as(precision, self.device)
        timed = self.timed[key]
        times = blocks.figures(timed)
        row: dict[str, Any] = {
            "model": self.name,
            "trained": bool(self.system.trained),
            "backend": backend,
            "precision": precision,
            "baseline": False,
            "resolution": size,
            "native_resolution": self.system.resolution,
            "parameters": sum(p.numel() for p in self.system.synthesizer.parameters()),
            **times,
        }
        counted = launches.count(frame, self.device)
        row |= {"launches": counted.host, "device_operations": counted.device}
        if self.parts is not None:
            sums = work.total(self.parts, WIDTHS[dtype])
            gflop = sums["gflop_dense"] + sums["gflop_filters"]
            row |= {
                "gflop_per_frame": round(gflop, 4),
                "gflop_filters": round(sums["gflop_filters"], 4),
                "gflop_per_s": round(gflop * times["fps"], 2),
                "gb_per_frame": round(sums["gb"], 5),
            }
        return {**row, "warnings": harness.instabilities(timed.samples)}


def stored_as(precision: str, device: str) -> Any:
    """The torch type of a row's activations; where it is the model's own, that of its largest."""
    from bench.subjects import DTYPES

    return DTYPES[precision or ("fp16" if device.startswith("cuda") else "fp32")]


def judge(
    results: Sequence[dict[str, Any]], parts: Mapping[str, Any], limits: Any, device: str
) -> None:
    """Put beside each time what the hardware would need at least."""
    for row in results:
        if parts[row["model"]] is not None:
            floor = limits.floor_ms(parts[row["model"]], stored_as(row["precision"], device))
            row["roofline_ms"] = round(floor, 4)
            row["roofline_percent"] = round(100 * floor / row["p50_ms"], 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
