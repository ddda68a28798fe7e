"""Best of n as a job: draw once, and tell for every n what a reward would have picked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from prefrl.envs.text_rewards import score_responses
from prefrl.envs.text_worlds import DEFAULT_WORLD
from prefrl.errors import UserError
from prefrl.runs.streams import stream_seed
from prefrl.text.data import sources
from prefrl.text.data.annotating import draw_responses
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.jobs import JOBS
from prefrl.text.jobs.parts import Place, Placed, fitting, load_reward, say
from prefrl.text.jobs.worlds import world_of
from prefrl.text.learn.best_of_n import best_of_n_kl, expected_best_of_n, pick_best
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model


@dataclass(frozen=True, kw_only=True)
class BestOfNJob:
    """Draw N responses to each prompt and keep the one that a reward likes best, for every power of two up to N."""

    verb: ClassVar[str] = "bestofn"
    model: str
    """Folder, run, or id of the hub."""
    reward: tuple[str, ...]
    """As for ppo."""
    data: str = DEFAULT_WORLD
    """Prompts."""
    prompts: int = 128
    """Of a world: held-out ones."""
    draws: int = 64
    """N: responses drawn for each prompt."""
    pessimism: float = 1.0
    temperature: float = 1.0
    place: Placed = field(default_factory=Place)

    def __post_init__(self) -> None:
        if self.draws < 1 or self.prompts < 1:
            raise UserError("draws and prompts must be at least 1.")

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Do it; `responses.jsonl` holds the best of N, `evaluations.jsonl` a row for each n.

        Draws are not shared out: of several processes the main one does everything.
        """
        runtime, seed = self.place.runtime(), self.place.seed
        if not runtime.is_main:
            return
        model, tokens = load_model(self.model)
        model.to(runtime.device)
        encoder, reading = self.place.encoder(tokens, context_length(model)), self.place.reading(tokens)
        world = world_of(self.data, seed, reading=self.place.reading(tokens))
        reward = load_reward(self.reward, tokens, runtime, self.pessimism, world)
        asked = sources.read_prompts(self.data, seed=seed, count=self.prompts, held_out=True, reading=reading)
        say(self.data, reading)
        prompts = fitting(encoder, asked)
        sampling = SamplingSettings(max_tokens=encoder.max_response_tokens, temperature=self.temperature)
        with runtime.autocast():
            drawn = draw_responses(model, encoder, prompts, self.draws, sampling, seed=stream_seed(seed, "best of n"))
        flat_prompts = [prompt for prompt in prompts for _ in range(self.draws)]
        flat = [text for row in drawn.texts for text in row]
        ended = [end for row in drawn.ended for end in row]
        shape = (len(prompts), self.draws)
        proxy = score_responses(reward, flat_prompts, flat).reshape(shape)
        gold = None
        if world is not None:
            judged = score_responses(lambda p, r: world.gold(p, r, ended), flat_prompts, flat)
            gold = judged.reshape(shape)
        n = 1
        while n <= self.draws:
            row: dict[str, Any] = {
                "step": n,
                "kl_nats": best_of_n_kl(n),
                "proxy": float(expected_best_of_n(proxy, proxy, n).mean()),
            }
            if gold is not None:
                row["gold"] = float(expected_best_of_n(proxy, gold, n).mean())
            folder.add_evaluation(row)
            n *= 2
        best = pick_best(drawn.texts, proxy)
        rows = [
            {"prompt": prompt, "response": text, "score": float(score)}
            for prompt, text, score in zip(prompts, best, proxy.max(1), strict=True)
        ]
        sources.write_rows(folder.path / "responses.jsonl", rows)
        folder.finish({"draws": self.draws, "prompts": len(prompts), "score": float(proxy.max(1).mean())})


JOBS[BestOfNJob.verb] = BestOfNJob
