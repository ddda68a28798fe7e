"""Steps of denoising against closed forms, Monte Carlo and diffusers; policy gradients against a known optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")

from diffusers import DDIMScheduler

from prefrl.errors import UserError
from prefrl.image.diffusion import MIN_SIGMA, Schedule, sample
from prefrl.image.direct import diffusion_dpo_loss
from prefrl.image.model import Condition
from prefrl.image.policy import PolicySettings, PolicyTrainer, policy_loss
from prefrl.image.reward_model import ranking_loss
from prefrl.runs.optimisation import OptimiserSettings


def scheduler_of(prediction: str, **options: Any) -> Any:
    return DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, clip_sample=False,
        timestep_spacing="trailing", **options,
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_step_is_that_of_diffusers(prediction: str) -> None:
    scheduler = scheduler_of(prediction)
    scheduler.set_timesteps(20)
    schedule = Schedule.of(scheduler.config, 20)
    assert schedule.times.tolist() == scheduler.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    x, said = (torch.randn(5, 3, 4, 4, generator=generator) for _ in range(2))
    for step in range(19):  # the last has no noise there, and a little here
        theirs = scheduler.step(
            said, scheduler.timesteps[step], x, eta=1.0, variance_noise=torch.zeros_like(x)
        ).prev_sample
        ours = schedule.mean(x, said, torch.full((5,), step))
        assert torch.allclose(ours, theirs, atol=1e-5)
        one = scheduler.step(said, scheduler.timesteps[step], x, eta=1.0, variance_noise=torch.ones_like(x)).prev_sample
        assert float((one - theirs).mean()) == pytest.approx(schedule.sigma(step), rel=1e-3)
    assert schedule.sigma(19) == MIN_SIGMA


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_what_the_network_should_say_gives_back_the_picture_and_the_noise(prediction: str) -> None:
    schedule = Schedule.of(scheduler_of(prediction).config, 10)
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(6, 3, 4, 4, generator=generator) for _ in range(2))
    times = torch.tensor([5, 100, 300, 500, 700, 900])
    noisy, wanted = schedule.target(clean, noise, times)
    found, its_noise = schedule.clean_and_noise(noisy, wanted, schedule.trained[times].view(-1, 1, 1, 1))
    assert torch.allclose(found, clean, atol=1e-3)
    assert torch.allclose(its_noise, noise, atol=1e-3)


def test_densities_and_divergences_are_those_of_gaussians() -> None:
    schedule = Schedule.of(scheduler_of("sample").config, 8)
    generator = torch.Generator().manual_seed(2)
    steps = torch.tensor([0, 3, 7])
    mean, other = (torch.randn(3, 2, 3, 3, generator=generator) for _ in range(2))
    sigma = schedule.sigmas[steps].view(-1, 1, 1, 1)
    then = mean + sigma * torch.randn(mean.shape, generator=generator)
    one, two = torch.distributions.Normal(mean, sigma), torch.distributions.Normal(other, sigma)
    assert torch.allclose(schedule.log_density(then, mean, steps), one.log_prob(then).sum((1, 2, 3)), rtol=1e-4)
    exact = torch.distributions.kl_divergence(one, two).sum((1, 2, 3))
    assert torch.allclose(schedule.divergence(mean, other, steps), exact, rtol=1e-4)


def test_the_divergence_is_the_mean_of_the_log_ratio() -> None:
    schedule = Schedule.of(scheduler_of("sample").config, 8)
    many, steps = 100_000, torch.full((100_000,), 3)
    sigma = schedule.sigma(3)
    mean = torch.zeros(many, 1, 1, 2)
    other = mean + torch.tensor([0.5, -0.2]).view(1, 1, 1, 2) * sigma
    drawn = mean + sigma * torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    ratios = schedule.log_density(drawn, mean, steps) - schedule.log_density(drawn, other, steps)
    exact = float(schedule.divergence(mean[:1], other[:1], steps[:1]))
    assert exact == pytest.approx((0.5**2 + 0.2**2) / 2, rel=1e-5)
    assert float(ratios.mean()) == pytest.approx(exact, abs=4 * float(ratios.std()) / many**0.5)


def test_a_schedule_without_a_gaussian_step_is_refused() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(UserError, match="no Gaussian density that is known here"):
        Schedule.of(FlowMatchEulerDiscreteScheduler().config, 10)
    with pytest.raises(UserError, match=r"from 1 to 1000 steps\. Received 1001"):
        Schedule.of(scheduler_of("sample").config, 1001)


class Pixels(nn.Module):
    """Two pixels whose mean is a weight: what an image model is to the trainer, with one step and no prompt."""

    shape = (3, 1, 2)
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(self.shape))

    def encode(self, prompts: Any) -> Condition:
        return Condition(torch.zeros(len(prompts), 1, 4), torch.ones(len(prompts), 1))

    def predict(self, x: torch.Tensor, times: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.mean.expand(len(x), -1, -1, -1)

    def schedule(self, num_steps: int) -> Schedule:
        return Schedule.of(scheduler_of("sample").config, num_steps)

    def copy(self) -> Pixels:
        other = Pixels()
        other.load_state_dict(self.state_dict())
        return other.requires_grad_(False)

    def trained(self) -> list[nn.Parameter]:
        return [self.mean]

    def to_pixels(self, x: torch.Tensor) -> Any:
        return x.detach().permute(0, 2, 3, 1).numpy()  # not rounded: the optimum is exact


WISH = np.array([[[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])


def wish(prompts: Any, pictures: Any) -> Any:
    return (pictures * WISH).sum((1, 2, 3))


def test_the_policy_gradient_is_that_of_the_objective() -> None:
    schedule = Schedule.of(scheduler_of("sample").config, 1)
    mean = torch.zeros(3, 1, 2, requires_grad=True)
    many, sigma = 200_000, schedule.sigma(0)
    drawn = sigma * torch.randn(many, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    rewards = torch.from_numpy(wish(None, drawn.permute(0, 2, 3, 1).numpy())).float()
    steps = torch.zeros(many, dtype=torch.long)
    now = schedule.log_density(drawn, mean.expand(many, -1, -1, -1), steps)
    divergence = schedule.divergence(mean.expand(many, -1, -1, -1), torch.full((many, 3, 1, 2), 0.01), steps)
    policy_loss((now - now.detach()).exp(), rewards, divergence, 0.2, 1e-3).backward()
    # By finite differences of J(m) = E r - beta KL, which is known in closed form: w . m - beta |m - 0.01|^2 / (2 s^2)
    weights = torch.from_numpy(WISH).permute(2, 0, 1).float()

    def objective(m: torch.Tensor) -> float:
        return float((weights * m).sum() - 1e-3 * (m - 0.01).square().sum() / (2 * sigma**2))

    for place in range(6):
        step = torch.zeros(6)
        step[place] = 1e-2
        h = step.view(3, 1, 2)
        slope = (objective(h) - objective(-h)) / 2e-2
        assert mean.grad is not None
        assert -float(mean.grad.flatten()[place]) == pytest.approx(slope, abs=0.03)


@pytest.mark.parametrize("beta", [0.02, 0.1])
def test_dpok_reaches_the_optimum_that_is_known(beta: float) -> None:
    model = Pixels()
    settings = PolicySettings(
        steps=150, prompts=64, images=4, beta=beta, baseline="value", clip_range=0.5, epochs=2, minibatch_size=256,
        optimiser=OptimiserSettings(learning_rate=2e-3, decay="linear"),
    )  # fmt: skip
    trainer = PolicyTrainer(model, ["x"], wish, settings, 1)  # type: ignore[arg-type]
    trainer.train()
    # max over m of w . m - beta |m|^2 / (2 sigma^2) is at m = sigma^2 w / beta
    best = torch.from_numpy(WISH).permute(2, 0, 1).float() * trainer.schedule.sigma(0) ** 2 / beta
    assert torch.allclose(model.mean.detach(), best, atol=0.25 * float(best.abs().max()))
    close = float((model.mean.detach() - best).norm() / best.norm())
    assert close < 0.25


def test_diffusion_dpo_against_a_value_by_hand() -> None:
    loss, margin = diffusion_dpo_loss(
        torch.tensor([0.10]), torch.tensor([0.12]), torch.tensor([0.30]), torch.tensor([0.29]), 100.0
    )
    assert float(margin[0]) == pytest.approx(3.0, rel=1e-4)  # -100 ((0.10 - 0.12) - (0.30 - 0.29))
    assert float(loss) == pytest.approx(0.04858735, rel=1e-4)  # log(1 + e^-3)


def test_rankings_of_two_are_bradley_terry_and_ties_count_half() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.2, 0.7]])
    pairs = -torch.nn.functional.logsigmoid(torch.tensor([1.0, 0.5]))
    assert float(ranking_loss(scores, [(1, 2), (2, 1)])) == pytest.approx(float(pairs.mean()), rel=1e-5)
    tie = -torch.nn.functional.logsigmoid(torch.tensor([1.0, -1.0])).mean()
    assert float(ranking_loss(scores[:1], [(1, 1)])) == pytest.approx(float(tie), rel=1e-5)


def test_the_same_seed_draws_the_same_pictures() -> None:
    model = Pixels()
    schedule = model.schedule(5)
    condition = model.encode(["x"] * 4)

    def draw(seed: int) -> torch.Tensor:
        def predict(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            return model.predict(x, times, condition)

        return sample(predict, schedule, (4, 3, 1, 2), torch.Generator().manual_seed(seed)).images

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
