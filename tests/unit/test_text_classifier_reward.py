"""A sequence classifier of transformers as a reward, used as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import text_models
import torch
import transformers

from prefrl.errors import UserError
from prefrl.text.jobs.parts import load_reward
from prefrl.text.learn.classifier_reward import ClassifierReward
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.tokens import Templated, Tokens


def save_classifier(folder: Path, **changes: Any) -> Any:
    options = {**text_models.COMMON, "vocab_size": 259, "num_labels": 1, **changes}
    model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**options)).eval()
    model.save_pretrained(folder)
    text_models.byte_tokenizer().save_pretrained(folder)
    return model


def test_its_scores_are_those_of_transformers_row_by_row(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "c")
    tokens = Tokens(text_models.byte_tokenizer())
    reward = load_reward([str(tmp_path / "c")], tokens, Runtime("cpu"), 1.0)
    assert isinstance(reward, ClassifierReward)
    prompts, responses = ["a?", "long question?", "b"], ["yes", "no", "a long answer"]
    expected = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = [*tokens.encode(prompt + response), tokens.end_id]
        expected.append(model(input_ids=torch.tensor([ids])).logits.item())
    assert reward(prompts, responses).tolist() == pytest.approx(expected, abs=1e-5)


def test_what_is_longer_than_its_context_loses_the_beginning_of_its_prompt_and_is_counted(tmp_path: Path) -> None:
    save_classifier(tmp_path / "c", max_position_embeddings=16)
    reward = ClassifierReward(str(tmp_path / "c"), Runtime("cpu"))
    with pytest.warns(UserWarning, match=r"can look at 16: the beginning of such prompts is left out"):
        cut = reward(["x" * 30 + "0123456789?"], ["yes!"])
    assert reward.num_cut == 1
    assert cut.tolist() == pytest.approx(reward(["0123456789?"], ["yes!"]).tolist(), abs=1e-5)


def test_a_classifier_of_several_labels_is_no_reward(tmp_path: Path) -> None:
    save_classifier(tmp_path / "c", num_labels=3)
    with pytest.raises(UserError, match="has 3 labels; a reward is one number"):
        ClassifierReward(str(tmp_path / "c"), Runtime("cpu"))


def test_a_chat_template_that_it_does_not_know_is_said(tmp_path: Path) -> None:
    import warnings

    save_classifier(tmp_path / "c")
    foreign, own = Templated("<|im_start|>user\nHi"), Templated("<s>Hi")
    with pytest.warns(UserWarning, match="knows none of its special tokens"):
        ClassifierReward(str(tmp_path / "c"), Runtime("cpu"))([foreign], ["yes"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassifierReward(str(tmp_path / "c"), Runtime("cpu"))([own, "plain"], ["yes", "no"])
