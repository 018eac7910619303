"""Controls: a strict schema, and changes that are movements."""

import json
import math
import random

import pytest

from realtime.control_schema import MESSAGE_BYTES
from realtime.controls import (
    SCHEMA,
    ControlChange,
    ControlError,
    Controls,
    KeyframeRequest,
    Limits,
    LiveControls,
    Ping,
    Ramp,
    RateLimit,
    SeedBlend,
    change_of,
    parse_change,
    parse_message,
    schema,
)

LIMITS = Limits(models=("default", "testcard"), bitrate_floor=100_000, bitrate_max=4_000_000)


def refused(text):
    with pytest.raises(ControlError) as caught:
        parse_message(text, LIMITS)
    error = caught.value
    assert str(error).endswith(".") and str(error).isprintable() and len(str(error)) < 300
    assert error.status == 400
    return error.code


def test_every_control_is_parsed():
    values = {
        "seed": 4294967295,
        "psi": -0.5,
        "speed": 0,
        "scrub": 12.5,
        "pause": True,
        "model": "testcard",
        "resolution": 512,
        "fps": 24,
        "bitrate": 1_000_000,
    }
    change = parse_message(json.dumps({"type": "set", **values}), LIMITS)
    assert isinstance(change, ControlChange)
    assert dict(change.values) == values
    assert change.apply(Controls()) == Controls(**{**values, "scrub": None})


def test_other_messages():
    assert parse_message('{"type":"ping","t":12.5}') == Ping(12.5)
    assert parse_message('{"type":"keyframe"}') == KeyframeRequest()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"type":"ping","t":1}', "binary"),
        ("{", "not_json"),
        ("", "not_json"),
        ("[" * 9000, "not_json"),
        ('{"type":"set","seed":' + "9" * 5000 + "}", "not_json"),
        ("[1]", "not_object"),
        ("null", "not_object"),
        ("{}", "unknown_type"),
        ('{"type":"reboot"}', "unknown_type"),
        ('{"type":["set"]}', "unknown_type"),
        ('{"type":"set","sead":1}', "unknown_key"),
        ('{"type":"set","\\ud800":1}', "unknown_key"),
        ('{"type":"keyframe","x":1}', "unknown_key"),
        ('{"type":"ping"}', "missing"),
        ('{"type":"set","seed":1,"seed":2}', "duplicate_key"),
        ('{"type":"set","seed":true}', "wrong_type"),
        ('{"type":"set","seed":1.0}', "wrong_type"),
        ('{"type":"set","seed":"1"}', "wrong_type"),
        ('{"type":"set","seed":null}', "wrong_type"),
        ('{"type":"set","psi":false}', "wrong_type"),
        ('{"type":"set","psi":NaN}', "wrong_type"),
        ('{"type":"set","psi":-Infinity}', "wrong_type"),
        ('{"type":"set","psi":1e999}', "out_of_range"),
        ('{"type":"set","psi":1' + "0" * 400 + "}", "out_of_range"),
        ('{"type":"set","psi":[0.5]}', "wrong_type"),
        ('{"type":"set","pause":1}', "wrong_type"),
        ('{"type":"ping","t":{}}', "wrong_type"),
        ('{"type":"ping","t":1e999}', "out_of_range"),
        ('{"type":"set","seed":-1}', "out_of_range"),
        ('{"type":"set","seed":4294967296}', "out_of_range"),
        ('{"type":"set","psi":2.01}', "out_of_range"),
        ('{"type":"set","speed":-8.1}', "out_of_range"),
        ('{"type":"set","scrub":1e10}', "out_of_range"),
        ('{"type":"set","fps":0.9}', "out_of_range"),
        ('{"type":"set","bitrate":99999}', "out_of_range"),
        ('{"type":"set","bitrate":4000001}', "out_of_range"),
        ('{"type":"set","resolution":300}', "not_offered"),
        ('{"type":"set","resolution":256.0}', "not_offered"),
        ('{"type":"set","model":"../../etc/passwd"}', "not_offered"),
        ('{"type":"set","model":["default"]}', "not_offered"),
    ],
)
def test_a_wrong_message_is_refused_with_its_code(text, code):
    assert refused(text) == code


def test_too_long_is_measured_in_bytes():
    pad = MESSAGE_BYTES - len('{"type":"ping","t":1}')
    assert parse_message('{"type":"ping","t":1}' + " " * pad) == Ping(1.0)
    assert refused('{"type":"ping","t":1}' + " " * (pad + 1)) == "too_long"
    assert refused('{"type":"' + "\u00e9" * (MESSAGE_BYTES // 2) + '"}') == "too_long"


def test_controls_with_an_offer_are_checked_alike():
    assert dict(parse_change({"seed": 3}, LIMITS).values) == {"seed": 3}
    with pytest.raises(ControlError):
        parse_change([("seed", 3)], LIMITS)


def mutated(rng, text):
    """`text` with a few bytes changed, cut out, doubled or moved."""
    data = bytearray(text.encode())
    if rng.random() < 0.3:  # only other digits: often still a message
        digits = [k for k, byte in enumerate(data) if chr(byte).isdigit()]
        for k in rng.sample(digits, min(2, len(digits))):
            data[k] = rng.choice(b"0123456789")
        return data.decode()
    for _ in range(rng.randrange(1, 6)):
        kind, at = rng.randrange(4), rng.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 6)]
        elif kind == 2:
            data[at:at] = data[at : at + 8]
        else:
            words = (b"null", b"NaN", b"1e400", b"true", b"-", b"{", b'"', b"\\ud800", b"[[")
            data[at:at] = rng.choice(words)
        if not data:
            data = bytearray(b"{")
    return data.decode("utf-8", "surrogateescape" if rng.random() < 0.5 else "replace")


def test_five_thousand_mutated_messages_are_parsed_or_refused_and_nothing_else():
    rng = random.Random(11)
    seeds = [
        '{"type":"set","seed":7,"psi":0.7,"speed":-1.5,"scrub":null,"pause":false}',
        '{"type":"set","model":"default","resolution":256,"fps":30,"bitrate":2000000}',
        '{"type":"ping","t":123.456}',
        '{"type":"keyframe"}',
    ]
    live, t, outcomes = LiveControls(), 0.0, {"taken": 0, "refused": 0}
    for _ in range(5000):
        try:
            message = parse_message(mutated(rng, rng.choice(seeds)), LIMITS)
        except ControlError as error:
            assert error.code and str(error).isprintable()
            outcomes["refused"] += 1
            continue
        outcomes["taken"] += 1
        if isinstance(message, ControlChange):
            t += 0.05
            live.apply(message, t)
            look = live.look_at(t)
            assert math.isfinite(live.motion_at(t)) and -2 <= look.psi <= 2
            assert look.model in LIMITS.models
    assert min(outcomes.values()) > 200, outcomes


def test_rate_limit_lets_a_burst_through_and_then_sixty_a_second():
    limit, now = RateLimit(0), 0
    for _ in range(60):
        limit.check(now)
    with pytest.raises(ControlError) as caught:
        limit.check(now)
    assert caught.value.code == "too_many"
    taken = 0
    for k in range(1000):  # one second, a thousand messages
        try:
            limit.check(k * 1_000_000)
            taken += 1
        except ControlError:
            pass
    assert 58 <= taken <= 60
    limit.check(10**12)


def test_schema_describes_the_dataclass():
    rows = {row["name"]: row for row in schema(LIMITS)}
    assert list(rows) == list(Controls().as_dict())
    for row in rows.values():
        assert set(row) >= {"name", "type", "min", "max", "step", "default", "unit", "label"}
    assert rows["seed"]["max"] == 2**32 - 1
    assert rows["model"]["choices"] == ["default", "testcard"]
    assert (rows["bitrate"]["min"], rows["bitrate"]["max"]) == (100_000, 4_000_000)
    json.dumps(SCHEMA, allow_nan=False)


def test_change_parts():
    change = change_of({"seed": 1, "model": "testcard", "scrub": 4.0})
    assert dict(change.only("model", "resolution").values) == {"model": "testcard"}
    assert dict(change.without("model").values) == {"seed": 1, "scrub": 4.0}
    assert change and not change_of({})
    assert change.apply(Controls()).scrub is None


def test_ramp_is_exact_at_both_ends_and_chains_without_a_jump():
    ramp = Ramp(1.0)
    ramp.to(3.0, 10.0, 0.3)
    assert (ramp.at(9.99), ramp.at(10.0), ramp.at(10.3), ramp.at(99.0)) == (1.0, 1.0, 3.0, 3.0)
    assert ramp.at(10.15) == pytest.approx(2.0)
    here = ramp.at(10.1)
    ramp.to(-1.0, 10.1, 0.3)
    assert ramp.at(10.1) == here and ramp.at(10.4) == -1.0 and ramp.target == -1.0


def weights(blend, t):
    """What is seen at `t` as {seed: weight}, mixed the way the engine does."""
    start, target, amount = blend.at(t)
    seen = {}
    for seed, weight in start:
        seen[seed] = seen.get(seed, 0.0) + weight * (1 - amount)
    if target is not None:
        seen[target] = seen.get(target, 0.0) + amount
    return seen


def distance(a, b):
    return sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in a.keys() | b.keys())


def test_a_seed_change_is_a_blend_of_six_tenths():
    blend = SeedBlend(1)
    assert blend.at(0.0) == (((1, 1.0),), None, 0.0)
    blend.to(2, 5.0)
    assert weights(blend, 5.0) == {1: 1.0, 2: 0.0}
    assert weights(blend, 5.3) == pytest.approx({1: 0.5, 2: 0.5})
    assert blend.at(5.6) == (((2, 1.0),), None, 0.0)


def test_a_second_change_starts_from_the_mixture_of_the_moment():
    blend = SeedBlend(1)
    blend.to(2, 0.0)
    before = weights(blend, 0.3)
    blend.to(3, 0.3)
    assert distance(weights(blend, 0.3), before) < 1e-12
    assert weights(blend, 0.95) == {3: 1.0}


def test_going_back_in_the_middle_of_a_blend_does_not_jump():
    blend = SeedBlend(1)
    blend.to(2, 0.0)
    before = weights(blend, 0.2)
    blend.to(1, 0.2)
    assert distance(weights(blend, 0.2), before) < 1e-12
    assert weights(blend, 1.0) == {1: 1.0}


def test_a_dragged_slider_never_jumps_stays_bounded_and_arrives():
    rng = random.Random(3)
    blend, t, last = SeedBlend(0), 0.0, {0: 1.0}
    for step in range(3000):
        t += 1 / 60
        if step % 500 < 400:
            blend.to(rng.randrange(1000), t)
            newest = step
        now = weights(blend, t)
        assert sum(now.values()) == pytest.approx(1.0, abs=1e-9)
        # The steepest part of a blend moves 2.5 % of the way in a frame, counted on both seeds.
        assert distance(now, last) < 0.1, (step, last, now)
        assert len(blend.at(t)[0]) <= 4
        last = now
    assert newest < 2999
    blend.to(77, t)
    assert weights(blend, t + 1.3) == {77: 1.0}


def test_live_controls_ramp_and_blend():
    live = LiveControls(Controls(seed=5, psi=1.0, model="testcard", resolution=128))
    look = live.look_at(0.0)
    assert (look.seed, look.psi, look.blend_seed, look.mix) == (5, 1.0, None, ())
    assert (look.model, look.resolution) == ("testcard", 128)
    live.apply(change_of({"seed": 6, "psi": 0.0}), 1.0)
    assert live.look_at(1.0).psi == 1.0 and live.look_at(1.15).psi == pytest.approx(0.5)
    half = live.look_at(1.3)
    assert (half.seed, half.blend_seed, half.psi) == (5, 6, 0.0)
    assert half.blend == pytest.approx(0.5)
    live.apply(change_of({"seed": 7}), 1.3)
    mixed = live.look_at(1.4)
    assert [seed for seed, _ in mixed.mix] == [5, 6] and mixed.blend_seed == 7
    assert live.look_at(9.0).seed == 7 and live.look_at(9.0).mix == ()
    assert live.controls == Controls(seed=7, psi=0.0, model="testcard", resolution=128)


def test_live_controls_drive_the_timeline():
    live = LiveControls(Controls(speed=2.0))
    assert live.motion_at(3.0) == 6.0
    live.apply(change_of({"pause": True, "scrub": 50.0}), 3.0)
    assert live.motion_at(3.0) == 6.0
    assert live.motion_at(9.0) == pytest.approx(50.4)
    assert live.controls.scrub is None
    live.apply(change_of({"pause": False, "speed": -1.0}), 10.0)
    assert live.motion_at(20.0) < live.motion_at(15.0)


def test_a_session_may_begin_paused_and_anywhere():
    live = LiveControls(Controls(pause=True, scrub=12.0))
    assert live.motion_at(0.0) == live.motion_at(99.0) == 12.0
    assert live.controls.scrub is None
