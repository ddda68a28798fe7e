"""What `prefrl text` does, as a script to copy from: a model that answers customers, taught by comparisons.

python scripts/examples/train_text.py --episodes 2048 --out runs/text
"""

from pathlib import Path

import tyro

from prefrl.envs.service_desk import ServiceDesk
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.text.data import sources
from prefrl.text.data.annotating import draw_responses, rank_by
from prefrl.text.data.examples import Encoder
from prefrl.text.jobs import jobs, policies, supervised
from prefrl.text.learn.ppo import TextPPOSettings
from prefrl.text.learn.reward_training import RewardTrainingSettings
from prefrl.text.learn.sft import SFTSettings
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model


def rate(value: float) -> OptimiserSettings:
    return OptimiserSettings(learning_rate=value, warmup_share=0.05, decay="cosine", adam_eps=1e-8)


def main(out: Path, size: str = "demo", paragraphs: int = 60_000, examples: int = 12_000, prompts: int = 1_500,
         episodes: int = 4_096, beta: float = 0.1) -> None:  # fmt: skip
    base = jobs.start(supervised.PretrainJob(size=size, paragraphs=paragraphs), out / "pretrain")
    learned = SFTSettings(batch_size=16, optimiser=rate(1e-3))
    sft = jobs.start(
        supervised.SFTJob(model=str(base.path), examples=examples, pretraining="servicedesk", training=learned),
        out / "sft",
    )

    model, tokens = load_model(sft.path)  # it answers, and someone says which answers are better
    encoder = Encoder(tokens, context_length(model), 64)
    asked = ServiceDesk(1).prompts(prompts)
    answers = draw_responses(model, encoder, asked, 4, SamplingSettings(max_tokens=64), seed=1)
    shown = [
        [text for text in row if encoder.fits(prompt, text)] for prompt, row in zip(asked, answers.texts, strict=True)
    ]
    ranked = rank_by(ServiceDesk.gold, asked, shown, temperature=0.5, seed=1)
    sources.write_rows(out / "comparisons.jsonl", sources.ranking_rows(ranked))

    fitted = RewardTrainingSettings(epochs=2, optimiser=rate(5e-4))
    reward = jobs.start(
        supervised.RewardJob(model=str(sft.path), data=str(out / "comparisons.jsonl"), training=fitted), out / "reward"
    )
    ppo = TextPPOSettings(episodes=episodes, epochs=2, beta=beta, optimiser=OptimiserSettings(learning_rate=5e-4))
    job = policies.PPOJob(model=str(sft.path), reward=(str(reward.path),), training=ppo)
    for row in jobs.start(job, out / "ppo").read_evaluations():
        print(f"{row['examples']} episodes: gold {row['gold']:.2f}, proxy {row['proxy']:.2f}, KL {row['kl_nats']:.1f}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
