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
from prefrl.files import read_json, read_plain
from prefrl.runs.sharding import plain_copy
from prefrl.text.model import lean_llama
from prefrl.text.model.inputs import model_inputs
from prefrl.text.model.loading import load_weights
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import context_length, merged, model_place, save_whole
from prefrl.text.model.sequences import Sequences, batches_by_length, by_prompt_length, make_sequences
from prefrl.text.model.tokens import Tokens, response_ids

transformers = require("transformers", "text")
FORMAT, FORMAT_VERSION = "prefrl.text_reward", 1


class RewardModel(nn.Module):
    """A transformer without its language head, and a linear head with a bias.

    Args:
        backbone: gives hidden states `(B, S, H)`.
        hidden: H.
        seed: the head's first weights follow from it; the global random state is left as it was.
    """

    def __init__(self, backbone: Any, hidden: int, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        return cls(backbone, hidden, seed).to(next(plain.parameters()).device).eval()

    def add_lora(self, settings: LoraSettings, seed: int) -> None:
        """Train adapters and the head instead of all weights, if the settings ask for that; saving merges them."""
        self.backbone = add_lora(self.backbone, settings, seed)

    @property
    def context(self) -> int:
        """Tokens that it can look at."""
        return context_length(self.backbone)

    def forward(self, batch: Sequences) -> Tensor:
        """Return `(B,)` float32 scores of whole responses, read at their last token."""
        return self.head(by_prompt_length(self.backbone, batch, self._at_end)[:, 0]).squeeze(-1).float()

    def values(self, batch: Sequences) -> Tensor:
        """Return `(B, R)` float32: the head's output before each token of the responses."""
        return self.head(by_prompt_length(self.backbone, batch, self._before)).squeeze(-1).float()

    def _at_end(self, batch: Sequences) -> Tensor:
        return self._hidden(batch, (batch.prompt_ids.shape[1] + batch.lengths - 1).unsqueeze(1))

    def _before(self, batch: Sequences) -> Tensor:
        columns = torch.arange(batch.response_ids.shape[1], device=batch.response_ids.device)
        return self._hidden(batch, (batch.prompt_ids.shape[1] - 1 + columns).expand(len(batch), -1))

    def _hidden(self, batch: Sequences, columns: Tensor) -> Tensor:
        """Return the hidden states in some columns of prompts and responses, `(B, K)`, as `(B, K, H)`."""
        until = int(columns.max()) + 1
        ids = torch.cat([batch.prompt_ids, batch.response_ids], 1)[:, :until]
        mask = torch.cat([batch.prompt_mask, batch.response_mask], 1)[:, :until]
        if lean_llama.backbone_of(self.backbone) is not None:
            return lean_llama.hidden_states(self.backbone, ids, mask, columns)
        states: Tensor = self.backbone(**model_inputs(self.backbone, ids, mask)).last_hidden_state
        return states[torch.arange(len(batch), device=states.device)[:, None], columns]

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
        """Save the whole model with its bias and tokenizer, adapters merged, or nothing; then read it back and compare.

        Raises:
            UserError: it could not be written, or what is read back is not what was trained.
        """
        whole = plain_copy(self)
        plain, head_module = merged(whole.backbone), whole.head

        def write(folder: Path) -> None:
            plain.save_pretrained(folder)
            tokens.tokenizer.save_pretrained(folder)
            head = {key: value.detach().cpu().contiguous() for key, value in head_module.state_dict().items()}
            safetensors.torch.save_file(head, folder / "reward_head.safetensors")
            about = {"format": FORMAT, "version": FORMAT_VERSION}
            (folder / "reward_model.json").write_text(json.dumps(about))

        save_whole(path, write)
        again, _ = RewardModel.load(path)
        kept = {
            **{f"backbone.{name}": value for name, value in plain.state_dict().items()},
            **_state(head_module, "head"),
        }
        read = again.state_dict()
        changed = [name for name, value in kept.items() if name not in read or not torch.equal(read[name], value.cpu())]
        if changed:
            raise UserError(
                f"The reward model saved in {path} does not read back as it was trained: {', '.join(changed[:3])} of "
                f"{len(kept)} weights differ. Do not use it: a {type(plain).__name__} is not saved whole."
            )

    @classmethod
    def load(cls, path: Path) -> tuple[RewardModel, Tokens]:
        """Load what `save` wrote; a run folder will do too.

        Raises:
            UserError: there is no reward model, or it is damaged.
        """
        place = Path(model_place(path))
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
        about = read_json(place / "reward_model.json")
        if not isinstance(about, dict) or type(about.get("version")) is not int:
            raise UserError(f"{place / 'reward_model.json'} is damaged: it names no version. Restore it from a copy.")
        if about["version"] > FORMAT_VERSION:
            raise UserError(f"{place} was written by a newer prefrl (format {about['version']}). Upgrade prefrl.")
        head = safetensors.torch.load(read_plain(place / "reward_head.safetensors"))
        backbone = load_weights(transformers.AutoModel, str(place), "reward model")
        model = cls(backbone, head["weight"].shape[1])
        model.head.load_state_dict(head)
        return model.eval(), Tokens.load(place)


def _state(module: nn.Module, name: str) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


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
        self.context = min(member.context for member in members)
        """Tokens of a prompt with its response that all members can look at."""

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
        answers = [
            response_ids(self.tokens, prompt, response) for prompt, response in zip(prompts, responses, strict=True)
        ]
        for prompt, answer, text in zip(asked, answers, responses, strict=True):
            if len(prompt) + len(answer) > self.context:
                raise UserError(
                    f"A prompt with its response has {len(prompt) + len(answer)} tokens; the reward model can look at "
                    f"{self.context}. The response begins: {text[:80]!r}"
                )
        return self.score_tokens(asked, answers)
