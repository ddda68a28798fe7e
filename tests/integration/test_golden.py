"""The quick ones of the golden runs (`tests/golden.py`), where the machine is the one that they were made on."""

from __future__ import annotations

import golden
import pytest


@pytest.mark.parametrize("name", golden.QUICK)
def test_a_run_ends_bit_for_bit_as_it_did(name: str) -> None:
    kept = golden.kept()
    if kept["machine"] != golden.machine():
        pytest.skip("The digests were made on another machine or with other libraries: python tests/golden.py --write")
    assert golden.run(name) == kept["runs"][name], "meant? python tests/golden.py --write keeps the new digests"


def test_digests_tell_values_types_and_places_apart() -> None:
    import torch

    values = [[1.0], [1], {"a": 1.0}, torch.ones(1), torch.ones(1, dtype=torch.float64), torch.ones(1, 1), [[], [1.0]]]
    assert len({golden.digest(value) for value in values}) == len(values)
