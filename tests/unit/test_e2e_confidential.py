"""What the stories look for in logs and resources is found where it is, and nowhere else."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from e2e.confidential import Planted

VECTOR = [0.0123456, -0.2345678, 0.3456789, -0.0045678, 0.5678912, 0.6789123, -0.0789124, 0.0891234] * 2
PLANTED = Planted({"a query": ["how signal boxes are locked"]}, {"a vector": [VECTOR]})


@pytest.mark.parametrize(
    "text",
    [
        str(VECTOR),
        str(np.array(VECTOR, dtype=np.float32)),
        str([np.float32(number) for number in VECTOR]),
        " ".join(f"{number:.6f}" for number in VECTOR),
        base64.b64encode(np.array(VECTOR, dtype="<f4").tobytes()).decode(),
    ],
    ids=["as_json_has_it", "as_numpy_has_it", "as_scalars", "with_six_digits", "in_base64"],
)
def test_a_vector_is_found_however_it_was_written(text: str) -> None:
    assert PLANTED.found({"a log": f"said {text} at last"}) == ["a vector in a log"]


def test_a_text_is_found_and_the_place_is_named() -> None:
    said = {"a status": 'asked "how signal boxes are locked"', "an event": "asked nothing"}

    assert PLANTED.found(said) == ["a query in a status"]


def test_numbers_that_are_alike_by_chance_are_no_vector() -> None:
    alike = " ".join(f"took {abs(number):.6f} s of 1.500001" for number in VECTOR)

    assert PLANTED.found({"a log": alike}) == []
