"""Where the time of a fit on images goes on a CPU, computed part by part and, in turn, all images at once as on a GPU.

    python scripts/benchmarks/benchmark_fit_images.py --threads 1

Three members, segments of 25 steps shaped as Atari's (84 x 84 x 4 uint8; a ball and two paddles, drawn here), batches
of 32 comparisons: 1,600 images a gradient step. Seconds of the processor, the system's included, which other programs
disturb less than they do the clock, and by the clock; the least of several. "A fit" to N comparisons is 60 steps and
the evaluation of all of them at its end, reckoned from these. The second table says what one step consists of, the
third what each convolution takes alone.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box, Discrete
from torch.profiler import ProfilerActivity, profile

from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.rewards.explaining import Examples
from prefrl.rewards.networks import EnsembleCNN
from prefrl.segments import Segment

STEPS, STACK, SIZE = 25, 4, 84
STEP = "a gradient step"
KINDS = {
    "convolutions, forward": ("mkldnn_convolution", "convolution_overrideable", "thnn_conv2d"),
    "convolutions, backward": ("convolution_backward",),
    "batch norm": ("native_batch_norm", "native_batch_norm_backward"),
    "leaky ReLU": ("leaky_relu", "leaky_relu_", "leaky_relu_backward"),
    "sums, means, products": ("mul", "mul_", "div", "div_", "sub", "add", "add_", "sum", "square_", "bernoulli_"),
    "copies and conversion": ("copy_",),
}


def segment(rng: np.random.Generator) -> Segment:
    """Return a segment of a game with a ball and two paddles."""
    frames = np.full((STEPS + STACK, SIZE, SIZE), 87, np.uint8)
    ball, move, paddles = rng.uniform(10, 70, 2), rng.uniform(-3, 3, 2), rng.uniform(10, 60, 2)
    for frame in frames:
        ball = (ball + move) % 80
        paddles = np.clip(paddles + rng.uniform(-3, 3, 2), 10, 60)
        frame[int(ball[0]) : int(ball[0]) + 3, int(ball[1]) : int(ball[1]) + 2] = 236
        for column, row in zip((8, 74), paddles.astype(int), strict=True):
            frame[row : row + 12, column : column + 2] = 147
    stacks = np.lib.stride_tricks.sliding_window_view(frames, STACK, axis=0)
    stacks = np.ascontiguousarray(np.moveaxis(stacks, -1, 1))
    return Segment(observations=stacks, actions=np.zeros(STEPS, np.int64), true_rewards=np.zeros(STEPS))


def least(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return seconds of the processor and by the clock."""
    taken = []
    for _ in range(repeats):
        cpu, clock = time.process_time(), time.perf_counter()
        function()
        taken.append((time.process_time() - cpu, time.perf_counter() - clock))
    return min(cpu for cpu, _ in taken), min(clock for _, clock in taken)


def kinds_of_one(step: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds of one step by kinds of operations."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    by_name = {event.key.removeprefix("aten::"): event.self_cpu_time_total / 1e6 for event in seen.key_averages()}
    kinds = {kind: sum(by_name.get(name, 0.0) for name in names) for kind, names in KINDS.items()}
    return {**kinds, "all else": sum(by_name.values()) - sum(kinds.values())}


def alone(channels: int, side: int, kernel: int, stride: int) -> None:
    """Print what a convolution of three members takes for 1,600 images, forward and backward, 32 at a time."""
    first, rounds = channels == STACK, 1600 // 32
    names = ("grouped, as stored", "grouped, channels last", "apart, channels last")
    cells = []
    for name, layout in zip(names, (torch.contiguous_format, torch.channels_last, torch.channels_last), strict=True):
        apart = name.startswith("apart")
        groups = 1 if apart or first else 3
        x = torch.rand(32, channels * groups, side, side).contiguous(memory_format=layout)
        weight = torch.rand(16 if apart else 48, channels, kernel, kernel).contiguous(memory_format=layout)
        times = rounds * (3 if apart else 1)
        gradient = torch.rand_like(torch.nn.functional.conv2d(x, weight, stride=stride, groups=groups))

        def forward(x=x, weight=weight, groups=groups, times=times) -> None:  # type: ignore[no-untyped-def]
            for _ in range(times):
                torch.nn.functional.conv2d(x, weight, stride=stride, groups=groups)

        def backward(x=x, weight=weight, groups=groups, times=times, gradient=gradient) -> None:  # type: ignore[no-untyped-def]
            for _ in range(times):
                torch.ops.aten.convolution_backward(
                    gradient,
                    x,
                    weight,
                    None,
                    [stride] * 2,
                    [0, 0],
                    [1, 1],
                    False,
                    [0, 0],
                    groups,
                    [not first, True, False],
                )

        cells.append(", ".join(f"{1000 * least(step, 3)[0]:.0f}" for step in (forward, backward)))
    print(f"| {kernel} x {kernel} of {side} x {side} | " + " | ".join(cells) + " |")


def main(comparisons: int = 64, threads: int = 1, repeats: int = 3) -> None:
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    ensemble = RewardEnsemble(Box(0, 255, (STACK, SIZE, SIZE), np.uint8), Discrete(6), RewardSettings(num_members=3))
    network = ensemble.network
    assert isinstance(network, EnsembleCNN)
    data = ComparisonData(ensemble, STEPS)
    pairs = [(segment(rng), segment(rng)) for _ in range(comparisons)]
    data.add(pairs, rng.integers(2, size=comparisons).tolist(), rng)
    fitter = Fitter(ensemble, FitSettings(batch_size=32))
    fitter.cut_points.follow(data, ensemble)
    examples = Examples(ensemble, data, fitter.cut_points)
    chosen = torch.randperm(comparisons)[:32]
    in_parts = network._convolve_in_parts

    def step() -> None:
        network.train()
        fitter._step(examples, chosen, None, None, None)

    ways = {"all at once": network._convolve, "in parts": in_parts}
    taken: dict[str, dict[str, tuple[float, float]]] = {way: {} for way in ways}
    operations = {}
    segments = torch.arange(64) % (2 * comparisons)
    for way, convolve in ways.items():
        network._convolve_in_parts = convolve  # type: ignore[method-assign]
        step()
        row = taken[way]
        row[STEP] = least(step, repeats)
        row["of it: images unpacked"] = least(lambda: data.features(segments), repeats)
        evaluation = least(lambda: fitter._losses(examples, None), 1)
        row[f"evaluation of {comparisons}"] = evaluation
        for num in (500, 2000):
            cpu, clock = (60 * a + b * num / comparisons for a, b in zip(row[STEP], evaluation, strict=True))
            row[f"a fit to {num}"] = (cpu, clock)
        operations[way] = kinds_of_one(step)
    print(f"{comparisons} comparisons, {threads} thread(s)\n")
    print("| seconds: processor (clock) | " + " | ".join(ways) + " | ratio |\n|---|---|---|---|")
    for name in taken["in parts"]:
        before, now = (taken[way][name] for way in ways)
        cells = " | ".join(f"{cpu:.3g} ({clock:.3g})" for cpu, clock in (before, now))
        print(f"| {name} | {cells} | {before[0] / now[0]:.2f} ({before[1] / now[1]:.2f}) |")
    print("\n| one step, seconds by the clock | " + " | ".join(ways) + " |\n|---|---|---|")
    for kind in operations["in parts"]:
        print(f"| {kind} | " + " | ".join(f"{operations[way][kind]:.2f}" for way in ways) + " |")
    print(
        "\n| milliseconds of the processor: forward, backward | grouped, as stored | grouped, channels last | "
        "apart, channels last |"
    )
    print("|---|---|---|---|")
    for layer in ((STACK, SIZE, 7, 3), (16, 26, 5, 2), (16, 11, 3, 1), (16, 9, 3, 1)):
        alone(*layer)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
