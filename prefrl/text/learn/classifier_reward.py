"""A sequence classifier of `transformers` with one label as a reward: most published reward models are that."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prefrl.errors import UserError, require
from prefrl.files import read_json
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.loading import load_weights
from prefrl.text.model.models import context_length, load_tokens
from prefrl.text.model.sequences import batches_by_length, pad_right
from prefrl.text.model.tokens import Templated, response_ids

transformers = require("transformers", "text")
BATCH = 32


def is_classifier(name: str) -> bool:
    """Tell whether a folder holds a sequence classifier, as `save_pretrained` writes it.

    Raises:
        UserError: its configuration cannot be read.
    """
    config = Path(name) / "config.json"
    if not config.is_file():
        return False
    about = read_json(config)
    kinds = about.get("architectures") if isinstance(about, dict) else None
    return isinstance(kinds, list) and any(str(kind).endswith("ForSequenceClassification") for kind in kinds)


class ClassifierReward:
    """The logit of a sequence classifier, read with its own tokenizer over prompt and response.

    What is longer than its context loses the beginning of its prompt; that is said the first time, and counted in
    `num_cut`.

    Args:
        name: folder of the model.
        runtime: where it is computed.

    Raises:
        UserError: it is not whole, or has more than one label.
    """

    def __init__(self, name: str, runtime: Runtime) -> None:
        self.name, self.num_cut = name, 0
        self._model = load_weights(transformers.AutoModelForSequenceClassification, name, "sequence classifier")
        if self._model.config.num_labels != 1:
            raise UserError(
                f"The classifier {name} has {self._model.config.num_labels} labels; a reward is one number. Give one "
                "with one label, or a function of your own that makes one number of them: FILE.py:FUNCTION."
            )
        self._tokens = load_tokens(name)
        self._model.config.get_text_config().pad_token_id = self._tokens.pad_id
        self._model.to(runtime.device).requires_grad_(False)
        self._context = context_length(self._model)
        self._special = set(self._tokens.tokenizer.all_special_ids)
        self._said = False

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """Return `(B,)` rewards, on the CPU; every response is taken as ended."""
        rows = [self._row(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        device, scores = next(self._model.parameters()).device, torch.zeros(len(rows))
        for index in batches_by_length([len(row) for row in rows], BATCH):
            ids, mask = pad_right([rows[i] for i in index], self._tokens.pad_id)
            logits = self._model(input_ids=ids.to(device), attention_mask=mask.long().to(device)).logits
            scores[index] = logits.squeeze(-1).float().cpu()
        return scores

    def _row(self, prompt: str, response: str) -> list[int]:
        ids = [*self._tokens.encode_prompt(prompt), *response_ids(self._tokens, prompt, response)]
        if isinstance(prompt, Templated) and not self._said and self._special.isdisjoint(ids[:-1]):
            self._said = True
            warnings.warn(
                f"The reward {self.name} reads prompts that the policy's chat template made, and knows none of its "
                f"special tokens: {prompt[:60]!r} is text to it. Take a classifier of the same template.",
                stacklevel=3,
            )
        if len(ids) > self._context:
            if not self.num_cut:
                warnings.warn(
                    f"A prompt with its response has {len(ids)} tokens for the reward {self.name}, which can look at "
                    f"{self._context}: the beginning of such prompts is left out.",
                    stacklevel=3,
                )
            self.num_cut += 1
        return ids[-self._context :]
