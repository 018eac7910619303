"""A moment of a face is 67 numbers with a fixed read-out."""

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces.state import CODE_SIZE, EXPRESSION, EXPRESSIONS, FaceState, part


def test_the_read_out_is_fixed() -> None:
    expression = np.zeros(53, np.float32)
    expression[EXPRESSION["jawOpen"]] = 0.7
    state = FaceState(
        (30, -12, 6), (15, -3), (1.5, 0.3, -0.6), (3, -6, 9), (1.5, 3, -4.5), expression
    )
    code = state.code()
    assert code.shape == (CODE_SIZE,) == (67,) and code.dtype == np.float32
    assert code[:14] == pytest.approx(
        [0.5, -0.2, 0.1, 0.5, -0.1, 0.5, 0.1, -0.2, 0.1, -0.2, 0.3, 0.1, 0.2, -0.3]
    )
    assert code[14 + 26] == pytest.approx(0.7) and EXPRESSIONS[26] == "jawOpen"
    assert np.count_nonzero(code[14:]) == 1


def test_a_code_is_read_back() -> None:
    code = np.random.default_rng(0).uniform(-1, 1, CODE_SIZE).astype(np.float32)
    back = FaceState.from_code(code)
    assert np.allclose(back.code(), code, atol=1e-6)
    assert back.pose[0] == pytest.approx(60 * code[0], rel=1e-6)
    assert np.array_equal(back.expression, code[part("expression")])


@pytest.mark.parametrize("bad", [np.zeros(66), np.full(67, np.nan), np.zeros((1, 67))])
def test_what_is_no_face_is_refused(bad) -> None:
    with pytest.raises(BadConfig, match="67 finite numbers"):
        FaceState.from_code(bad)


def test_fields_have_their_places() -> None:
    assert (part("gaze"), part("expression")) == (slice(3, 5), slice(14, 67))
    with pytest.raises(BadConfig, match="no 'nose'"):
        part("nose")
