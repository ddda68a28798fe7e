"""Rejection-sampling fine-tuning as a job: the best of n responses to each prompt, then fine-tuning on them.

One round of RAFT (Dong et al. 2023, s. 3), as for Llama 2 (Touvron et al. 2023, s. 3.2.3): the simple rival of learning
from a reward by gradients. `selected.jsonl` in the folder of the run holds what is imitated.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prefrl.envs.text_rewards import score_responses
from prefrl.envs.text_worlds import DEFAULT_WORLD
from prefrl.errors import UserError
from prefrl.runs.streams import stream_seed
from prefrl.text.data import sources
from prefrl.text.data.annotating import draw_responses
from prefrl.text.data.examples import Encoder
from prefrl.text.data.files import read_rows
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.jobs import JOBS
from prefrl.text.jobs.parts import Place, Placed, Watch, fitting, load_reward, make_evaluation, run_policy, say
from prefrl.text.jobs.worlds import world_of
from prefrl.text.learn.reward_model import ModelReward
from prefrl.text.learn.sft import SFTSettings, SFTTrainer
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import context_length, load_model


@dataclass(frozen=True, kw_only=True)
class RejectionJob:
    """Draw N responses to each prompt, keep the one that a reward likes best, and fine-tune on what was kept."""

    verb: ClassVar[str] = "rejection"
    model: str
    """The fine-tuned model, which draws them."""
    reward: tuple[str, ...]
    """As for ppo."""
    data: str = DEFAULT_WORLD
    """Prompts, as for ppo."""
    prompts: int | None = None
    """How many; default: 4,000 of a world, all of a file or a record."""
    draws: int = 8
    """N: responses drawn for each prompt; one that did not end is never kept."""
    pessimism: float = 1.0
    """As for ppo."""
    temperature: float = 1.0
    lora: LoraSettings = field(default_factory=LoraSettings)
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    training: SFTSettings = field(default_factory=SFTSettings)

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise UserError(f"draws must be at least 2: of one response the best is that one. Received {self.draws}")

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Draw and choose, unless that is done, fine-tune, and save the policy with the curve of its rewards."""
        runtime, seed = self.place.runtime(), self.place.seed
        model, tokens = load_model(self.model)
        encoder, reading = self.place.encoder(tokens, context_length(model)), self.place.reading(tokens)
        world = world_of(self.data, seed, self.watch.world, self.place.reading(tokens))
        reward = load_reward(self.reward, tokens, runtime, self.pessimism, world)
        prompts = fitting(encoder, sources.read_prompts(self.data, seed=seed, count=self.prompts, reading=reading))
        say(self.data, reading)
        model.to(runtime.device)
        sampling = SamplingSettings(max_tokens=encoder.max_response_tokens, temperature=self.temperature)
        path = folder.path / "selected.jsonl"

        def select() -> None:
            if not path.is_file():
                with runtime.autocast():
                    sources.write_rows(path, self._selected(model, encoder, prompts, reward, sampling))

        runtime.on_main(select)
        runtime.wait()
        kept = read_rows(path)
        rows = encoder.rows([(row["prompt"], (row["response"],)) for row in kept])
        pairs = [(row.prompt, row.responses[0]) for row in rows if row is not None]
        model = add_lora(model, self.lora, stream_seed(seed, "lora"))
        trainer = SFTTrainer(model, pairs, self.place.seeded(self.training), pad_id=tokens.pad_id, runtime=runtime)
        trainer.name = "rejection sampling"
        proxy = reward if isinstance(reward, ModelReward) else None
        watched = make_evaluation(self.watch, self.model, self.data, model, encoder, sampling, runtime, proxy, reading)
        said = {
            "examples": len(pairs),
            "selected_score": sum(row["score"] for row in kept) / len(kept),
            "drawn_score": sum(row["mean_score"] for row in kept) / len(kept),
        }
        run_policy(
            trainer, folder, runtime, tokens, watched, self.watch.times, self.lora, held_out=lambda: said, quiet=quiet
        )  # fmt: skip

    def _selected(
        self, model: Any, encoder: Encoder, prompts: list[str], reward: Any, sampling: SamplingSettings
    ) -> list[dict[str, Any]]:
        """Return the best response that ended to each prompt, with its score and the mean of those that could be kept.

        Raises:
            UserError: none of them ended.
        """
        seed = stream_seed(self.place.seed, "rejection")
        drawn = draw_responses(model, encoder, prompts, self.draws, sampling, seed=seed)
        flat_prompts = [prompt for prompt in prompts for _ in range(self.draws)]
        scores = score_responses(reward, flat_prompts, [text for row in drawn.texts for text in row])
        rows = []
        for number, (prompt, texts, ended) in enumerate(zip(prompts, drawn.texts, drawn.ended, strict=True)):
            own = scores[number * self.draws : (number + 1) * self.draws]
            can = [i for i in range(self.draws) if ended[i] and encoder.fits(prompt, texts[i])]
            if can:
                best = max(can, key=lambda i: own[i])
                score, mean = float(own[best]), float(own[can].mean())
                rows.append({"prompt": prompt, "response": texts[best], "score": score, "mean_score": mean})
        if not rows:
            raise UserError(
                f"None of {len(flat_prompts):,} responses ended within {sampling.max_tokens} tokens. Raise "
                "--max-tokens."
            )
        if len(rows) < len(prompts):
            left_out = len(prompts) - len(rows)
            warnings.warn(
                f"Of {left_out:,} of {len(prompts):,} prompts no response ended within {sampling.max_tokens} tokens; "
                "they are left out.", stacklevel=2,
            )  # fmt: skip
        return rows


JOBS[RejectionJob.verb] = RejectionJob
