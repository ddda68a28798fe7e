"""Convolutions part by part are those of all images at once: what they give, their gradients, norms and draws."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrl.rewards import convolutions
from prefrl.rewards.convolutions import Layers, Rooms, convolve, convolve_to_learn
from prefrl.rewards.networks import EnsembleCNN, Features

M = 3


def images(num: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(256, (num, channels, height, width), generator=generator, dtype=torch.uint8)


class InParts(EnsembleCNN):
    """Small images too."""

    def _convolve(self, images: Tensor) -> Tensor:
        return self._convolve_in_parts(images)


class AtOnce(EnsembleCNN):
    """As on a GPU."""

    def _convolve_in_parts(self, images: Tensor) -> Tensor:
        return self._convolve(images)


def both(shape: tuple[int, int, int], dropout: float) -> tuple[InParts, AtOnce]:
    first, second = (
        kind(M, shape, 0, torch.Generator().manual_seed(0), dropout).double() for kind in (InParts, AtOnce)
    )
    second._convolve = lambda given: _in_double(second, given)  # type: ignore[method-assign]
    return first, second


def _in_double(network: EnsembleCNN, given: Tensor) -> Tensor:
    x, groups = given.double() / 255, 1
    for kernel, stride, norm in zip(network.kernels, network.strides, network.norms, strict=True):
        x = functional.conv2d(x, kernel.flatten(0, 1), stride=stride, padding=network.padding, groups=groups)
        groups = M
        x = functional.dropout2d(functional.leaky_relu(norm(x), 0.01), network.dropout, network.training)
    return x.reshape(len(given), M, -1).transpose(0, 1)


@pytest.mark.parametrize("shape", [(4, 45, 52), (3, 10, 10), (1, 29, 31), (2, 1, 3)])
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_rewards_gradients_norms_and_draws_are_those_of_all_images_at_once(
    shape: tuple[int, int, int], dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "NUMBERS_AT_ONCE", 16 * 700)  # several parts, the last of them smaller
    parts, whole = both(shape, dropout)
    weights = torch.randn(M, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for step in range(3):  # the later ones in the arrays that the first has left
        given = images(13 - step, *shape)
        outcomes = []
        for network in (parts.train(), whole.train()):
            network.zero_grad()
            torch.manual_seed(step)
            rewards = network(Features(given, None))
            (rewards * weights[:, : len(given)]).tanh().sum().backward()
            gradients = [parameter.grad for parameter in network.parameters()]
            outcomes.append([rewards.detach(), torch.rand(3), *gradients, *network.state_dict().values()])
        for ours, theirs in zip(*outcomes, strict=True):
            assert ours is not None and theirs is not None
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        given = images(13, *shape)
        torch.testing.assert_close(parts.eval()(Features(given, None)), whole.eval()(Features(given, None)))


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "NUMBERS_AT_ONCE", 300)
    generator = torch.Generator().manual_seed(1)
    kernels = [
        torch.randn(2, 3, channels, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
        for channels in (2, 3)
    ]
    masks = [torch.rand(5, 2, 3, dtype=torch.float64, generator=generator).round() * 2 for _ in kernels]
    layers = Layers((1, 2), 1, 0.01, 1e-5)

    weights = torch.randn(2, 5, 18, dtype=torch.float64, generator=generator)

    def value() -> Tensor:
        return (convolve_to_learn(images(5, 2, 4, 5), kernels, masks, layers, Rooms())[0] * weights).sum()

    value().backward()
    for kernel in kernels:
        assert kernel.grad is not None
        slopes = torch.empty_like(kernel.data)
        for place in range(kernel.numel()):
            at = kernel.data.view(-1)[place]
            ends = []
            for step in (1e-6, -2e-6):
                at += step
                ends.append(value().detach())
            at += 1e-6
            slopes.view(-1)[place] = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(kernel.grad, slopes, rtol=1e-5, atol=1e-7)
        assert kernel.grad.abs().max() > 0.1


def test_nearly_constant_images_have_the_variance_that_they_have() -> None:
    """Sums of squares less the square of the mean lose all digits where a filter gives 1000 and a little."""
    given = torch.full((600, 1, 5, 5), 255, dtype=torch.uint8)
    given[::7, 0, 2, 2] = 254
    kernel = torch.full((1, 1, 1, 3, 3), 100.0)
    _, (norm,) = convolve_to_learn(given, [kernel], [], Layers((1,), 1, 0.01, 1e-5), Rooms())
    exact = functional.conv2d(given.double() / 255, kernel[0].double(), padding=1)
    torch.testing.assert_close(norm.mean[0, 0].double(), exact.mean(), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(norm.variance[0, 0].double(), exact.var(), rtol=1e-4, atol=0.0)


def test_two_passes_before_a_gradient_do_not_share_arrays() -> None:
    network = InParts(M, (1, 10, 10), 0, torch.Generator().manual_seed(0), dropout=0.0).train()
    given = [images(6, 1, 10, 10), images(6, 1, 10, 10).flip(0) // 3]
    wanted = []
    for shown in given:
        network.zero_grad()
        network(Features(shown, None)).square().sum().backward()
        wanted.append(copy.deepcopy(network.kernels[0].grad))
    network.zero_grad()
    first, second = (network(Features(shown, None)).square().sum() for shown in given)
    (first + second).backward()
    torch.testing.assert_close(network.kernels[0].grad, wanted[0] + wanted[1])


def test_arrays_are_given_back_when_learning_ends() -> None:
    network = InParts(M, (1, 10, 10), 0, torch.Generator().manual_seed(0)).train()
    network(Features(images(6, 1, 10, 10), None)).sum().backward()
    assert network._rooms._free
    assert not network.eval()._rooms._free


def test_images_of_any_layout_are_read_alike() -> None:
    network: nn.Module = InParts(M, (4, 12, 12), 0, torch.Generator().manual_seed(0)).eval()
    given = images(9, 4, 12, 12)
    frames = given.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.equal(network(Features(given, None)), network(Features(frames, None)))
        stack = images(12, 1, 12, 12)[:, 0].unfold(0, 4, 1).movedim(-1, 1)  # each image in four stacks
        assert torch.equal(network(Features(stack, None)), network(Features(stack.contiguous(), None)))


def test_no_images_have_no_rewards() -> None:
    network = EnsembleCNN(M, (4, 12, 12), 0, torch.Generator().manual_seed(0)).eval()
    norms = [
        convolutions.Norm(*(value.view(M, 16) for value in (n.running_mean, n.running_var))) for n in network.norms
    ]
    layers = Layers(network.strides, network.padding, 0.01, 1e-5)
    assert convolve(images(0, 4, 12, 12), list(network.kernels), norms, layers).shape == (M, 0, 16 * 3 * 3)


def test_large_images_are_read_in_parts_on_a_cpu_and_small_ones_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for side, wanted in ((43, True), (42, False)):
        network, calls = EnsembleCNN(M, (1, side, side), 0, torch.Generator().manual_seed(0)), []
        in_parts = network._convolve_in_parts
        monkeypatch.setattr(network, "_convolve_in_parts", lambda given, f=in_parts, c=calls: c.append(1) or f(given))
        network.train()(Features(images(4, 1, side, side), None))
        with torch.no_grad():
            network.eval()(Features(images(4, 1, side, side), None))
        assert len(calls) == (2 if wanted else 0)
        network(Features(images(4, 1, side, side), None)).sum().backward()  # a gradient of what is not fitted
        assert len(calls) == (2 if wanted else 0) and network.kernels[0].grad is not None
