"""M members in one network give what M networks would."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prefrl.errors import UserError
from prefrl.rewards.networks import EnsembleCNN, EnsembleMLP, EnsembleOf, Features

M, B, D = 3, 7, 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector(num: int = B, size: int = D) -> Tensor:
    return torch.randn(num, size, generator=seeded(1))


def images(channels: int = 2, size: int = 43) -> Tensor:
    return torch.randint(256, (B, channels, size, size), generator=seeded(2), dtype=torch.uint8)


def separate_mlp(ensemble: EnsembleMLP, member: int) -> nn.Sequential:
    """Return the member as an ordinary network."""
    layers: list[nn.Module] = []
    for weight, bias in zip(ensemble.weights, ensemble.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.load_state_dict({"weight": weight[member].detach().T, "bias": bias[member, 0].detach()})
        layers += [linear, nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])


class SeparateCNN(nn.Module):
    """One member of an `EnsembleCNN`, from ordinary layers."""

    def __init__(self, ensemble: EnsembleCNN, member: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for kernel, stride in zip(ensemble.kernels, (3, 2, 1, 1), strict=True):
            out, channels, size, _ = kernel[member].shape
            conv = nn.Conv2d(channels, out, size, stride, bias=False)
            conv.load_state_dict({"weight": kernel[member].detach().clone()})
            layers += [conv, nn.BatchNorm2d(out, affine=False), nn.LeakyReLU(0.01)]
        self.body = nn.Sequential(*layers)
        self.head = separate_mlp(ensemble.head, member)

    def forward(self, given: Tensor, actions: Tensor | None = None) -> Tensor:
        flat = self.body(given / 255.0).flatten(1)
        return self.head(flat if actions is None else torch.cat([flat, actions], dim=1)).squeeze(1)


# --- multilayer perceptron ---


@pytest.mark.parametrize("hidden", [(), (8,), (64, 64)])
def test_mlp_equals_separate_networks_member_by_member(hidden: tuple[int, ...]) -> None:
    ensemble = EnsembleMLP(M, D, hidden, seeded())
    rewards = ensemble(Features(None, vector()))
    assert rewards.shape == (M, B)
    for member in range(M):
        alone = separate_mlp(ensemble, member)(vector()).squeeze(1)
        torch.testing.assert_close(rewards[member], alone, rtol=1e-5, atol=1e-6)


def test_mlp_by_hand() -> None:
    ensemble = EnsembleMLP(1, 1, (2,), seeded())
    with torch.no_grad():
        ensemble.weights[0].copy_(torch.tensor([[[1.0, -1.0]]]))
        ensemble.biases[0].copy_(torch.tensor([[[0.0, 3.0]]]))
        ensemble.weights[1].copy_(torch.tensor([[[10.0], [100.0]]]))
        ensemble.biases[1].fill_(0.5)
    # x = 4: hidden (4, -1), leaky (4, -0.01), 40 - 1 + 0.5
    # x = -2: hidden (-2, 5), leaky (-0.02, 5), -0.2 + 500 + 0.5
    rewards = ensemble(Features(None, torch.tensor([[4.0], [-2.0]])))
    torch.testing.assert_close(rewards, torch.tensor([[39.5, 500.3]]))


def test_members_may_be_given_different_features() -> None:
    ensemble = EnsembleMLP(M, D, (8,), seeded())
    given = torch.randn(M, B, D, generator=seeded(3))
    rewards = ensemble(Features(None, given))
    for member in range(M):
        torch.testing.assert_close(rewards[member], ensemble(Features(None, given[member]))[member])


def test_a_members_gradient_comes_from_its_own_loss_alone() -> None:
    ensemble = EnsembleMLP(M, D, (8, 8), seeded())
    weights = torch.tensor([1.0, 0.0, 3.0])
    (ensemble(Features(None, vector())).square().mean(1) * weights).sum().backward()
    for member in range(M):
        alone = separate_mlp(ensemble, member)
        (alone(vector()).square().mean() * weights[member]).backward()
        for layer, stacked in zip(alone[::2], ensemble.weights, strict=True):
            assert stacked.grad is not None and isinstance(layer, nn.Linear) and layer.weight.grad is not None
            torch.testing.assert_close(stacked.grad[member], layer.weight.grad.T, rtol=1e-4, atol=1e-6)


def test_starting_weights_come_from_the_generator_differ_by_member_and_are_scaled_by_fan_in() -> None:
    first, again, other = (EnsembleMLP(M, 100, (50,), seeded(seed)) for seed in (0, 0, 1))
    for a, b, c, fan_in in zip(first.weights, again.weights, other.weights, (100, 50), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a[0], a[1])
        assert a.abs().max() <= 1 / math.sqrt(fan_in)
        assert a.abs().max() > 0.9 / math.sqrt(fan_in)


# --- convolutional network ---


@pytest.mark.parametrize("with_actions", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_cnn_without_dropout_equals_separate_networks_member_by_member(with_actions: bool, training: bool) -> None:
    size = D if with_actions else 0
    ensemble = EnsembleCNN(M, (2, 43, 46), size, seeded(), dropout=0.0)
    given = torch.randint(256, (B, 2, 43, 46), generator=seeded(2), dtype=torch.uint8)
    actions = vector() if with_actions else None
    members = [SeparateCNN(ensemble, member) for member in range(M)]
    for network in (ensemble, *members):
        network.train()
        for _ in range(3):  # so that the running statistics are not the starting ones
            network(Features(given, actions)) if network is ensemble else network(given, actions)
        network.train(training)
    rewards = ensemble(Features(given, actions))
    assert rewards.shape == (M, B)
    for member, alone in enumerate(members):
        torch.testing.assert_close(rewards[member], alone(given, actions), rtol=1e-3, atol=1e-4)
    norms = [layer for layer in members[1].body if isinstance(layer, nn.BatchNorm2d)]
    for joint, norm in zip(ensemble.norms, norms, strict=True):
        assert isinstance(joint, nn.BatchNorm2d) and joint.running_var is not None and norm.running_var is not None
        torch.testing.assert_close(joint.running_var[16:32], norm.running_var, rtol=1e-4, atol=1e-5)


def test_cnn_drops_filters_only_while_it_is_fitted() -> None:
    ensemble = EnsembleCNN(M, (2, 43, 43), 0, seeded())
    same = images()[:1].expand(B, -1, -1, -1)
    fitted = ensemble.train()(Features(same, None))
    assert fitted.std(1).min() > 0
    evaluated = ensemble.eval()(Features(same, None))
    torch.testing.assert_close(evaluated, evaluated[:, :1].expand(-1, B))


@pytest.mark.parametrize("size", [(43, 43), (42, 43), (7, 7), (1, 1)])
def test_images_of_any_size_have_a_network(size: tuple[int, int]) -> None:
    network = EnsembleCNN(2, (1, *size), 0, seeded()).eval()
    assert network(Features(torch.zeros(3, 1, *size, dtype=torch.uint8), None)).shape == (2, 3)
    kernels = (7, 5, 3, 3) if min(size) >= 43 else (3, 3, 3)
    assert tuple(kernel.shape[-1] for kernel in network.kernels) == kernels


def multiplications(height: int, width: int) -> int:
    network = EnsembleCNN(3, (3, height, width), 0, seeded()).eval()
    with FlopCounterMode(display=False) as counted:
        network(Features(torch.zeros(1, 3, height, width, dtype=torch.uint8), None))
    return counted.get_total_flops() // 2


def test_images_too_small_for_the_large_kernels_cost_about_what_those_just_large_enough_do() -> None:
    """With stride 1, one of 40 x 40 took over six times as long as one of 43 x 43, and a first fit five minutes."""
    least = multiplications(43, 43)
    assert all(multiplications(size, size) < 1.6 * least for size in (7, 27, 28, 40, 42))
    assert multiplications(7, 700) < 1.7 * (7 * 700) / 43**2 * least


def test_weights_that_were_learned_with_other_strides_keep_them() -> None:
    """Those of before fit the network of now as they are: taken with its strides they would say something else."""
    seen = Features(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=seeded()), None)
    now, before = (EnsembleCNN(2, (3, 32, 32), 0, seeded()).eval() for _ in range(2))
    before.strides = EnsembleCNN.SMALL_STRIDES
    wanted = before(seen)
    assert not torch.allclose(now(seen), wanted)
    state = {name: tensor for name, tensor in before.state_dict().items() if name != "moves"}  # as it was saved then
    now.load_state_dict(state)
    assert torch.equal(now(seen), wanted)
    again = EnsembleCNN(2, (3, 32, 32), 0, seeded()).eval()
    again.load_state_dict(now.state_dict())  # saved once more
    assert torch.equal(again(seen), wanted)
    with pytest.raises(ValueError, match="those of no network"):
        again.load_state_dict({**now.state_dict(), "moves": torch.tensor([9, 9, 9])})


# --- a module of one's own ---


class Custom(nn.Module):
    def __init__(self, size: int = D) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(size, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.register_buffer("scale", torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x)))) * self.scale


class FlatCustom(Custom):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(1)


class OfImagesAndActions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 + D, 1)

    def forward(self, seen: Tensor, actions: Tensor) -> Tensor:
        assert seen.dtype == torch.uint8
        return self.layer(torch.cat([seen.float().mean((2, 3)), actions], dim=1))


def with_copies(make: Callable[[], nn.Module]) -> tuple[EnsembleOf, list[nn.Module]]:
    copies: list[nn.Module] = []

    def factory() -> nn.Module:
        module = make()
        copies.append(copy.deepcopy(module))
        return module

    return EnsembleOf(factory, M), copies


@pytest.mark.parametrize("make", [Custom, FlatCustom])
@pytest.mark.parametrize("training", [False, True])
def test_ensemble_of_modules_equals_the_modules(make: Callable[[], nn.Module], training: bool) -> None:
    ensemble, members = with_copies(make)
    for _ in range(3):  # moves the running statistics
        rewards = ensemble.train(training)(Features(None, vector()))
        alone = torch.stack([member.train(training)(vector()).reshape(B) for member in members])
        torch.testing.assert_close(rewards, alone, rtol=1e-4, atol=1e-5)
    alone = torch.stack([member.eval()(vector()).reshape(B) for member in members])
    torch.testing.assert_close(ensemble.eval()(Features(None, vector())), alone, rtol=1e-4, atol=1e-5)


def test_module_for_images_is_given_actions_as_well_where_the_reward_reads_them() -> None:
    ensemble, members = with_copies(OfImagesAndActions)
    rewards = ensemble(Features(images(), vector()))
    alone = torch.stack([member(images(), vector()).squeeze(1) for member in members])
    torch.testing.assert_close(rewards, alone, rtol=1e-4, atol=1e-4)


def test_frozen_layers_of_a_module_stay_frozen() -> None:
    def make() -> nn.Module:
        network = nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Linear(4, 1))
        network[0].requires_grad_(False)
        return network

    ensemble, _ = with_copies(make)
    assert [p.requires_grad for p in ensemble.parameters()] == [False, False, True, True]


def test_factory_that_hands_out_one_module_is_refused() -> None:
    module = nn.Linear(D, 1)
    with pytest.raises(UserError, match="same module twice"):
        EnsembleOf(lambda: module, M)


def test_factory_of_something_else_is_refused() -> None:
    with pytest.raises(UserError, match=r"must return a torch.nn.Module. Received builtin"):
        EnsembleOf(lambda: torch.tanh, M)


def test_module_of_several_outputs_is_refused() -> None:
    ensemble = EnsembleOf(lambda: nn.Linear(D, 2), M)
    with pytest.raises(UserError, match=r"\(B,\) or \(B, 1\) values; got \(7, 2\)"):
        ensemble(Features(None, vector()))
