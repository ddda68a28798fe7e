"""Policies that learn from preferences directly, without a reward model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from prefrl.errors import UserError
from prefrl.runs.guard import enough_memory
from prefrl.runs.streams import stream_seed
from prefrl.text.data import sources
from prefrl.text.data.examples import check_no_ties, texts_of
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import (
    Place,
    Placed,
    Watch,
    load_proxy,
    make_evaluation,
    nothing_held_out,
    prompt_key,
    run_policy,
    say,
    split_by,
)
from prefrl.text.jobs.running import LESS_MEMORY
from prefrl.text.learn.implied_reward import ImpliedReward
from prefrl.text.learn.preference import PreferenceSettings, PreferenceTrainer, simpo_settings
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import context_length, load_model


@dataclass(frozen=True, kw_only=True)
class DPOJob:
    """Train a policy on preferences without a reward model: DPO, on pairs or whole rankings."""

    verb: ClassVar[str] = "dpo"
    model: str
    """The fine-tuned model, which is also the reference."""
    data: str
    """A record, or a JSONL or Parquet file of comparisons, rankings, or likes."""
    proxy: tuple[str, ...] = ()
    """Reward models to draw beside the gold reward in the curve; training does not read them."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    place: Placed = field(default_factory=Place)
    watch: Watch = field(default_factory=Watch)
    training: PreferenceSettings = field(default_factory=PreferenceSettings)

    def run(self, folder: TextFolder, *, quiet: bool) -> None:
        """Train the policy on the pairs or likes and save it, with its held-out figures, in the run's folder."""
        if self.training.method != self.verb:
            raise UserError(f"{self.verb} was asked to train by {self.training.method}; leave training.method out.")
        runtime = self.place.runtime()
        model, tokens = load_model(self.model)
        encoder, reading = self.place.encoder(tokens, context_length(model)), self.place.reading(tokens)
        read = sources.read_likes if self.training.method == "kto" else sources.read_rankings
        data: list[Any] = read(self.data, reading)
        say(self.data, reading)
        if self.training.rankings:
            check_no_ties(data)
        rows = encoder.rows([(item.prompt, texts_of(item)) for item in data])
        data = [item for item, row in zip(data, rows, strict=True) if row is not None]
        learned, held_out = split_by(data, [prompt_key(item.prompt) for item in data], self.place.seed)
        model = add_lora(model, self.lora, stream_seed(self.place.seed, "lora")).to(runtime.device)
        with enough_memory(LESS_MEMORY):  # the reference's pass over all of the data
            trainer = PreferenceTrainer(model, encoder, learned, self.place.seeded(self.training), runtime=runtime)
            per_token = self.training.method == "simpo"
            implied = (
                ImpliedReward(model, encoder, held_out, self.training.beta, runtime, per_token=per_token)
                if held_out
                else None
            )
        proxy = load_proxy(self.proxy, tokens, runtime, 0.0)
        sampling = SamplingSettings(max_tokens=encoder.max_response_tokens)
        watched = make_evaluation(self.watch, self.model, self.data, model, encoder, sampling, runtime, proxy, reading)
        if implied is None:
            nothing_held_out()
        told = None if implied is None else implied.figures
        run_policy(trainer, folder, runtime, tokens, watched, self.watch.times, self.lora, held_out=told, quiet=quiet)


@dataclass(frozen=True, kw_only=True)
class IPOJob(DPOJob):
    """Train a policy by identity preference optimisation."""

    verb: ClassVar[str] = "ipo"
    training: PreferenceSettings = field(default_factory=lambda: PreferenceSettings(method="ipo"))


@dataclass(frozen=True, kw_only=True)
class SimPOJob(DPOJob):
    """Train a policy by simple preference optimisation, which has no reference."""

    verb: ClassVar[str] = "simpo"
    training: PreferenceSettings = field(default_factory=simpo_settings)


@dataclass(frozen=True, kw_only=True)
class KTOJob(DPOJob):
    """Train a policy from likes and dislikes."""

    verb: ClassVar[str] = "kto"
    training: PreferenceSettings = field(default_factory=lambda: PreferenceSettings(method="kto"))
