"""Reward models of responses: a language model with a scalar head at the last token of the response.

Started from the fine-tuned model (Stiennon et al. 2020, s. 3.4; InstructGPT, s. 3.5). The head has a bias, so that the
score of reference responses can be 0 on average, and it is saved with the model: the classification heads of
`transformers` have none.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prefrl.errors import UserError, require
from prefrl.text.model import lean_llama
from prefrl.text.model.models import context_length, merged, save_whole
from prefrl.text.model.sequences import Sequences, batches_by_length, make_sequences, model_inputs
from prefrl.text.model.tokens import Tokens

transformers = require("transformers", "text")
FORMAT, FORMAT_VERSION = "prefrl.text_reward", 1


class RewardModel(nn.Module):
    """A transformer without its language head, and a linear head with a bias.

    Args:
        backbone: gives hidden states `(B, S, H)`.
        hidden: H.
    """

    def __init__(self, backbone: Any, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(hidden, 1)
        nn.init.normal_(self.head.weight, std=1 / (hidden + 1) ** 0.5)  # Stiennon et al. 2020, app. B.1
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_policy(cls, policy: Any, seed: int = 0) -> RewardModel:
        """Return a reward model started from a copy of a language model; its head's weights follow from the seed."""
        plain = merged(policy)
        backbone = copy.deepcopy(plain.base_model)
        backbone.requires_grad_(True)
        hidden = plain.get_output_embeddings().weight.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(backbone, hidden).to(next(plain.parameters()).device).eval()

    def _hidden(self, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
        """Return the hidden states of the last `keep` columns, `(B, keep, H)`."""
        if lean_llama.backbone_of(self.backbone) is not None:
            return lean_llama.hidden_states(self.backbone, ids, mask, keep)
        return self.backbone(**model_inputs(self.backbone, ids, mask)).last_hidden_state[:, -keep:]

    def forward(self, batch: Sequences) -> Tensor:
        """Return `(B,)` float32 scores of whole responses, read at their last token."""
        ids = torch.cat([batch.prompt_ids, batch.response_ids], 1)
        width = batch.response_ids.shape[1]
        hidden = self._hidden(ids, torch.cat([batch.prompt_mask, batch.response_mask], 1), width)
        picked = hidden[torch.arange(len(batch), device=hidden.device), batch.lengths - 1]
        return self.head(picked).squeeze(-1).float()

    def values(self, batch: Sequences) -> Tensor:
        """Return `(B, R)` float32: the head's output before each token of the responses."""
        ids = torch.cat([batch.prompt_ids, batch.response_ids[:, :-1]], 1)
        mask = torch.cat([batch.prompt_mask, batch.response_mask[:, :-1]], 1)
        return self.head(self._hidden(ids, mask, batch.response_ids.shape[1])).squeeze(-1).float()

    @torch.no_grad()
    def score(
        self, prompts: Sequence[list[int]], responses: Sequence[list[int]], pad_id: int, batch_size: int = 64
    ) -> Tensor:
        """Return `(B,)` scores of token ids, on the CPU, computed in batches of similar length."""
        scores = torch.zeros(len(prompts))
        device = self.head.weight.device
        for index in batches_by_length([len(p) + len(r) for p, r in zip(prompts, responses, strict=True)], batch_size):
            batch = make_sequences([prompts[i] for i in index], [responses[i] for i in index], pad_id).to(device)
            scores[index] = self(batch).cpu()
        return scores

    def recentre(self, prompts: Sequence[list[int]], responses: Sequence[list[int]], pad_id: int) -> float:
        """Set the bias so that these responses score 0 on average; return what was taken off."""
        mean = float(self.score(prompts, responses, pad_id).mean())
        with torch.no_grad():
            self.head.bias.sub_(mean)
        return mean

    def save(self, path: Path, tokens: Tokens) -> None:
        """Save the whole model with its bias and tokenizer, or nothing."""

        def write(folder: Path) -> None:
            self.backbone.save_pretrained(folder)
            tokens.tokenizer.save_pretrained(folder)
            head = {"weight": self.head.weight.detach().cpu().contiguous(), "bias": self.head.bias.detach().cpu()}
            safetensors.torch.save_file(head, folder / "reward_head.safetensors")
            about = {"format": FORMAT, "version": FORMAT_VERSION}
            (folder / "reward_model.json").write_text(json.dumps(about))

        save_whole(path, write)

    @classmethod
    def load(cls, path: Path) -> tuple[RewardModel, Tokens]:
        """Load what `save` wrote; a run folder will do too.

        Raises:
            UserError: there is no reward model, or it is damaged.
        """
        place = Path(path)
        if (place / "model").is_dir():
            place = place / "model"
        if not (place / "reward_model.json").is_file():
            raise UserError(f"There is no reward model in {path}. Give the folder that prefrl text reward made.")
        try:
            return cls._read(place)
        except UserError:
            raise
        except Exception as error:  # safetensors and transformers raise many kinds
            raise UserError(f"The reward model in {path} cannot be read: {error}. Make it anew.") from error

    @classmethod
    def _read(cls, place: Path) -> tuple[RewardModel, Tokens]:
        about = json.loads((place / "reward_model.json").read_text())
        if about["version"] > FORMAT_VERSION:
            raise UserError(f"{place} was written by a newer prefrl (format {about['version']}). Upgrade prefrl.")
        head = safetensors.torch.load_file(place / "reward_head.safetensors")
        backbone = transformers.AutoModel.from_pretrained(place, dtype=torch.float32)
        model = cls(backbone, head["weight"].shape[1])
        model.head.load_state_dict(head)
        return model.eval(), Tokens.load(place)


class ModelReward:
    """One reward model, or several taken pessimistically, as a reward of strings or of token ids.

    With M members it is their mean less `pessimism` times their standard deviation over members: where they disagree,
    nobody has said what is better (compare Coste et al. 2023).

    Args:
        members: reward models of one tokenizer.
        tokens: that tokenizer.
        pessimism: k, at least 0.

    Raises:
        UserError: no members, or a negative pessimism.
    """

    def __init__(self, members: Sequence[RewardModel], tokens: Tokens, *, pessimism: float = 0.0) -> None:
        if not members:
            raise UserError("A reward needs at least one reward model; got none.")
        if pessimism < 0:
            raise UserError(f"pessimism must be at least 0. Received {pessimism}")
        self.members, self.tokens, self.pessimism = list(members), tokens, pessimism
        self._context = context_length(members[0].backbone)

    def score_tokens(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> Tensor:
        """Return `(B,)` rewards of token ids, on the CPU."""
        scores = torch.stack([member.score(prompts, responses, self.tokens.pad_id) for member in self.members])
        if len(self.members) == 1:
            return scores[0]
        return scores.mean(0) - self.pessimism * scores.std(0, correction=0)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """Return `(B,)` rewards of strings; every response is taken as ended.

        Raises:
            UserError: a prompt with its response is longer than the context of the reward models.
        """
        asked = [self.tokens.encode_prompt(prompt) for prompt in prompts]
        answers = [[*self.tokens.encode(response), self.tokens.end_id] for response in responses]
        for prompt, answer, text in zip(asked, answers, responses, strict=True):
            if len(prompt) + len(answer) > self._context:
                raise UserError(
                    f"A prompt with its response has {len(prompt) + len(answer)} tokens; the reward model can look at "
                    f"{self._context}. The response begins: {text[:80]!r}"
                )
        return self.score_tokens(asked, answers)
