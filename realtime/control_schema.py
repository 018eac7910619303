"""What a viewer may change while the stream runs: one typed schema, strictly parsed.

The dataclass `Controls` is the schema: parsing, limits, the description sent to the page and the
defaults all come from its fields. Parsing is pure; whatever comes in, the result is a typed
message or a `ControlError` with a stable code and one sentence.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from realtime.config import RESOLUTIONS
from realtime.errors import SignalingError

MESSAGE_BYTES = 16_384
MESSAGES_PER_S = 60
MAX_MODELS = 1000
Kind = Literal["int", "float", "bool", "choice"]


class ControlError(SignalingError):
    """A control message is refused: `code` is stable, the text one sentence with a next step."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)


def _control(
    default: Any,
    kind: Kind,
    label: str,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    unit: str = "",
    choices: tuple[Any, ...] = (),
    optional: bool = False,
) -> Any:
    """A field of `Controls` and all that is known about it."""
    about = {"type": kind, "min": low, "max": high, "step": step, "unit": unit, "label": label}
    return field(default=default, metadata={**about, "choices": choices, "optional": optional})


@dataclass(frozen=True)
class Controls:
    """The state that viewers share. Also the schema: see the fields' metadata."""

    seed: int = _control(0, "int", "Seed", low=0, high=2**32 - 1, step=1)
    psi: float = _control(0.7, "float", "Truncation psi", low=-2, high=2, step=0.01)
    speed: float = _control(1.0, "float", "Speed", low=-8, high=8, step=0.05, unit="x")
    scrub: float | None = _control(
        None, "float", "Go to", low=-1e9, high=1e9, step=0.1, unit="s", optional=True
    )
    pause: bool = _control(False, "bool", "Pause")
    model: str = _control("default", "choice", "Model")
    resolution: int = _control(256, "choice", "Resolution", unit="px", choices=RESOLUTIONS)
    fps: float = _control(30.0, "float", "Frame rate", low=1, high=120, step=1, unit="frames/s")
    bitrate: int = _control(
        2_000_000, "int", "Bitrate", low=50_000, high=50_000_000, step=50_000, unit="bit/s"
    )

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_FIELDS = {f.name: f for f in dataclasses.fields(Controls)}


@dataclass(frozen=True)
class Limits:
    """What of the schema depends on the server."""

    models: tuple[str, ...] = ("default",)
    bitrate_floor: int = 150_000
    bitrate_max: int = 50_000_000
    resolutions: tuple[int, ...] = RESOLUTIONS


def schema(limits: Limits | None = None) -> list[dict[str, Any]]:
    """Each control for a page: name, type, min, max, step, default, unit, label, choices."""
    limits = limits or Limits()
    rows = []
    for name, about in _FIELDS.items():
        row = {"name": name, **about.metadata, "default": about.default}
        row["min"], row["max"] = _bounds(name, limits)
        row["choices"] = list(_choices(name, limits))
        rows.append(row)
    return rows


def _bounds(name: str, limits: Limits) -> tuple[float | None, float | None]:
    if name == "bitrate":
        return limits.bitrate_floor, limits.bitrate_max
    return _FIELDS[name].metadata["min"], _FIELDS[name].metadata["max"]


def _choices(name: str, limits: Limits) -> tuple[Any, ...]:
    if name == "model":
        return limits.models[:MAX_MODELS]
    if name == "resolution":
        return limits.resolutions
    return _FIELDS[name].metadata["choices"]


SCHEMA = schema()


@dataclass(frozen=True)
class ControlChange:
    """Some controls and their new values, each checked."""

    values: Mapping[str, Any]

    def apply(self, controls: Controls) -> Controls:
        """`controls` with these values; a scrub is an act and not a state, so it stays None."""
        return dataclasses.replace(controls, **{**self.values, "scrub": None})

    def only(self, *names: str) -> ControlChange:
        """The part that concerns `names`."""
        return change_of({k: v for k, v in self.values.items() if k in names})

    def without(self, *names: str) -> ControlChange:
        """The part that does not concern `names`."""
        return change_of({k: v for k, v in self.values.items() if k not in names})

    def __bool__(self) -> bool:
        return bool(self.values)


@dataclass(frozen=True)
class Ping:
    """Asks for `t` back, whatever the client's clock means by it."""

    t: float


@dataclass(frozen=True)
class KeyframeRequest:
    """Asks for a keyframe."""


Message = ControlChange | Ping | KeyframeRequest


def change_of(values: Mapping[str, Any]) -> ControlChange:
    """A change of values that are known to be right, e.g. one parsed before."""
    return ControlChange(MappingProxyType(dict(values)))


def parse_message(text: str | bytes, limits: Limits | None = None) -> Message:
    """One message of the data channel "control".

    Raises:
        ControlError: binary, too_long, not_json, not_object, unknown_type, unknown_key, missing,
            wrong_type, out_of_range, not_offered.
    """
    if not isinstance(text, str):
        raise ControlError("binary", "Control messages are text: send JSON as a string.")
    # A UTF-8 text has at least as many bytes as characters, so a very long one is not encoded
    # first.
    if len(text) > MESSAGE_BYTES or len(text.encode("utf-8", "replace")) > MESSAGE_BYTES:
        raise ControlError("too_long", f"The message is longer than {MESSAGE_BYTES} bytes.")
    message = _parse_json(text)
    kind = message.pop("type", None)
    if kind == "set":
        return parse_change(message, limits)
    if kind == "ping":
        _refuse_unknown(message, ("t",))
        if "t" not in message:
            raise ControlError("missing", "A ping needs 't', the number to send back.")
        return Ping(_number("t", message["t"], float))
    if kind == "keyframe":
        _refuse_unknown(message, ())
        return KeyframeRequest()
    raise ControlError(
        "unknown_type", f"The type {_show(kind)} is unknown: send 'set', 'ping' or 'keyframe'."
    )


def parse_change(values: object, limits: Limits | None = None) -> ControlChange:
    """Check some controls' values, e.g. those that come with an offer.

    Raises:
        ControlError: As `parse_message`.
    """
    limits = limits or Limits()
    if not isinstance(values, dict):
        raise ControlError("not_object", "Controls are an object of names and values.")
    _refuse_unknown(values, tuple(_FIELDS))
    return change_of({name: _checked(name, value, limits) for name, value in values.items()})


def _parse_json(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except ControlError:
        raise
    except (ValueError, RecursionError) as error:  # also integers of over 4,300 digits
        raise ControlError("not_json", "The message is not JSON: send one object.") from error
    if not isinstance(message, dict):
        raise ControlError("not_object", 'The message is not an object: send {"type": ...}.')
    return message


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ControlError("duplicate_key", "A name occurs twice: send each control once.")
    return result


def _refuse_constant(name: str) -> None:
    raise ControlError("wrong_type", f"{name} is not a number that can be set: send a finite one.")


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in values:
        if name not in known:
            offered = f"known are {', '.join(known)}" if known else "none is expected"
            raise ControlError("unknown_key", f"{_show(name)} is unknown; {offered}.")


def _checked(name: str, value: object, limits: Limits) -> Any:
    about = _FIELDS[name].metadata
    if value is None and about["optional"]:
        return None
    if about["type"] == "bool":
        if not isinstance(value, bool):
            raise ControlError("wrong_type", f"{name} is {_show(value)}: send true or false.")
        return value
    if about["type"] == "choice":
        choices = _choices(name, limits)
        # Not `value in choices` alone: 256.0 and True equal whole numbers in Python.
        if type(value) not in {type(c) for c in choices} or value not in choices:
            offered = ", ".join(str(c) for c in choices[:20])
            raise ControlError("not_offered", f"{name} {_show(value)}: choose from {offered}.")
        return value
    number = _number(name, value, int if about["type"] == "int" else float)
    low, high = _bounds(name, limits)
    if (low is not None and number < low) or (high is not None and number > high):
        raise ControlError(
            "out_of_range", f"{name} is {_show(value)}: it must lie between {low:g} and {high:g}."
        )
    return number


def _number(name: str, value: object, kind: type[int] | type[float]) -> Any:
    # bool is an int to Python and never to us.
    fits = isinstance(value, int) if kind is int else isinstance(value, int | float)
    if isinstance(value, bool) or not fits:
        word = "a whole number" if kind is int else "a number"
        raise ControlError("wrong_type", f"{name} is {_show(value)}: send {word}.")
    try:
        number = kind(value)  # type: ignore[call-overload,arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ControlError("out_of_range", f"{name} is {_show(value)}: send a finite number.")
    return number


def _show(value: object) -> str:
    """A foreign value, short and printable."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


class RateLimit:
    """A token bucket: `rate` messages a second, of which a whole second's may come at once."""

    def __init__(self, now_ns: int, rate: float = MESSAGES_PER_S) -> None:
        self._rate = rate
        self._tokens = float(rate)
        self._seen_ns = now_ns

    def check(self, now_ns: int) -> None:
        """Take one token.

        Raises:
            ControlError: too_many; the message is to be ignored.
        """
        gained = max(0, now_ns - self._seen_ns) * self._rate / 1e9
        self._tokens = min(self._rate, self._tokens + gained)
        self._seen_ns = max(self._seen_ns, now_ns)
        if self._tokens < 1:
            raise ControlError(
                "too_many", f"More than {self._rate:g} messages a second: the rest is ignored."
            )
        self._tokens -= 1
