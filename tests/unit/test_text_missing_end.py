"""Not ending is never paid for, whatever the scale of the reward; and a policy that learns it is seen."""

from __future__ import annotations

import warnings

import pytest
import text_models
import torch

from prefrl.text.data.examples import Encoder
from prefrl.text.learn.end_watch import WINDOW, EndWatch
from prefrl.text.learn.ppo import PPOTrainer, TextPPOSettings
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.sequences import make_sequences
from prefrl.text.model.tokens import Tokens


def trainer(**options: object) -> PPOTrainer:
    settings = TextPPOSettings(batch_size=4, minibatch_size=4, sampling=SamplingSettings(max_tokens=4), **options)  # type: ignore[arg-type]
    encoder = Encoder(Tokens(text_models.byte_tokenizer()), 64, 4)
    model = text_models.build("llama", vocab_size=259)
    return PPOTrainer(model, encoder, ["a"], lambda p, r: [0.0] * len(p), settings, runtime=Runtime("cpu"))


SEQUENCES = make_sequences([[5]] * 4, [[9, 1], [9, 9, 9, 9], [9, 1], [8, 8, 8, 8]], 2)
"""The second and the last did not end."""


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_by_default_not_ending_costs_a_standard_deviation_at_any_scale(scale: float, shift: float) -> None:
    scores = scale * (torch.tensor([1.0, 1.0, -1.0, -1.0]) + shift)
    given = trainer()._penalised(scores, SEQUENCES)
    assert given[[0, 2]].tolist() == scores[[0, 2]].tolist()
    assert (scores - given)[[1, 3]].tolist() == pytest.approx([scale, scale], rel=0.02)


def test_scores_that_are_all_alike_still_make_ending_worth_it() -> None:
    assert trainer()._penalised(torch.zeros(4), SEQUENCES).tolist() == [0.0, -1.0, 0.0, -1.0]


def test_the_replication_replaces_and_the_plain_penalty_subtracts() -> None:
    scores = torch.tensor([3.0, -5.0, 2.0, -6.0])
    assert trainer(missing_end="replace")._penalised(scores, SEQUENCES).tolist() == [3.0, -1.0, 2.0, -1.0]
    assert trainer(missing_end="subtract")._penalised(scores, SEQUENCES).tolist() == [3.0, -6.0, 2.0, -7.0]
    assert trainer(missing_end="ignore")._penalised(scores, SEQUENCES).tolist() == scores.tolist()


def test_a_policy_that_learns_not_to_end_is_said_once_also_after_a_resume() -> None:
    watch = EndWatch()
    for step in range(WINDOW):
        watch.see(0.1 * step, 0.9)
    again = EndWatch()
    again.restore(watch.state())
    for step in range(WINDOW - 1):
        again.see(1.0 + step, 0.4)
    with pytest.warns(UserWarning, match="that end fell from 90% to 40% while the objective rose"):
        again.see(9.0, 0.4)
    last = EndWatch()
    last.restore(again.state())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last.see(9.0, 0.1)
        for objective, rate in ((-1.0, 0.4), (1.0, 0.85)):  # it falls together with the objective; or hardly falls
            other = EndWatch()
            for _ in range(WINDOW):
                other.see(0.0, 0.9)
            for _ in range(WINDOW):
                other.see(objective, rate)
