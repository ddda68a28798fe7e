"""Images as a one-step game, and its denoising view, as Gymnasium environments.

`ImageGame`: the observation is a prompt, the action a whole picture, and the episode ends there. `DenoisingGame`: the
same game seen step by step, as diffusion models play it: the observation is the prompt, the noisy picture and how many
steps are left, the action the next, less noisy picture, and the reward comes with the last (Black et al. 2023, 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.envs.image_worlds import DEFAULT_IMAGE_WORLD, IMAGE_WORLDS
from prefrl.errors import UserError

PictureReward = Callable[[Sequence[str], NDArray[np.uint8]], Any]
"""(B prompts, pictures `(B, H, W, 3)` uint8) -> B scores."""
CHARACTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-"


class ImageGame(gymnasium.Env[str, NDArray[np.uint8]]):
    """A prompt is drawn at each reset; an action is a picture for it, and ends the episode with its reward.

    Args:
        world: name of an image world, or module:Name.
        seed: of the world.
        reward: of pictures; None: the world's gold reward.
        prompts: drawn from uniformly; None: 1,000 of the world.
        render_mode: rgb_array for the last picture.

    Raises:
        UserError: no prompts, or prompts longer than 200 characters.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  (as Gymnasium has it)

    def __init__(
        self, world: str = DEFAULT_IMAGE_WORLD, seed: int = 0, reward: PictureReward | None = None,
        prompts: Sequence[str] | None = None, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        made = IMAGE_WORLDS.find(world)(seed)
        self.prompts = list(made.prompts(1000) if prompts is None else prompts)
        if not self.prompts:
            raise UserError("The image game needs at least one prompt; got none.")
        if max(map(len, self.prompts)) > 200:
            raise UserError("The image game takes prompts of up to 200 characters.")
        self.reward = made.gold if reward is None else reward
        self.render_mode = render_mode
        self.shape = tuple(made.shape)
        self.observation_space: Any = spaces.Text(200, min_length=0, charset=CHARACTERS)
        self.action_space: Any = spaces.Box(0, 255, self.shape, np.uint8)
        self._prompt = ""
        self._picture = np.zeros(self.shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw a prompt."""
        super().reset(seed=seed)
        self._prompt = self.prompts[int(self.np_random.integers(len(self.prompts)))]
        return self._prompt, {}

    def step(self, action: NDArray[np.uint8]) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score a picture for the prompt.

        Raises:
            UserError: it is of another shape or type.
        """
        self._picture = checked_picture(action, self.shape)
        return self._prompt, self._score(), True, False, {"prompt": self._prompt}

    def _score(self) -> float:
        return float(np.asarray(self.reward([self._prompt], self._picture[None]))[0])

    def render(self) -> Any:
        """Return the last picture, enlarged eightfold."""
        return self._picture.repeat(8, 0).repeat(8, 1) if self.render_mode == "rgb_array" else None


class DenoisingGame(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """The image game in T steps from noise to a picture.

    Args:
        num_steps: T.
        world: as of `ImageGame`, as all else.
        seed: of the world.
        reward: of the picture at the end.
        prompts: drawn from uniformly.
        render_mode: rgb_array for the picture as it is.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self, num_steps: int = 20, world: str = DEFAULT_IMAGE_WORLD, seed: int = 0, reward: PictureReward | None = None,
        prompts: Sequence[str] | None = None, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        if num_steps < 1:
            raise UserError(f"num_steps must be at least 1. Received {num_steps}")
        self.game = ImageGame(world, seed, reward, prompts)
        self.num_steps, self.render_mode = num_steps, render_mode
        rows, columns, _ = self.game.shape
        self.action_space: Any = spaces.Box(-np.inf, np.inf, (3, rows, columns), np.float32)
        self.observation_space: Any = spaces.Dict(
            {
                "prompt": self.game.observation_space,
                "noisy": spaces.Box(-np.inf, np.inf, (3, rows, columns), np.float32),
                "steps_left": spaces.Discrete(num_steps + 1),
            }
        )
        self._noisy = np.zeros((3, rows, columns), np.float32)
        self._prompt, self._left = "", 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a prompt and noise."""
        super().reset(seed=seed)
        self._prompt, info = self.game.reset(seed=seed)
        self._noisy = self.np_random.standard_normal(self._noisy.shape).astype(np.float32)
        self._left = self.num_steps
        return self._observation(), info

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Take the next, less noisy picture `(3, H, W)`, from -1 to 1 where it is clean; the last one is scored.

        Raises:
            UserError: it is of another shape, or not finite.
        """
        given = np.asarray(action, np.float32)
        if given.shape != self._noisy.shape or not np.isfinite(given).all():
            raise UserError(
                f"Expected a finite array of shape {self._noisy.shape}. Received one of shape {given.shape}"
            )
        self._noisy, self._left = given.copy(), self._left - 1
        if self._left > 0:
            return self._observation(), 0.0, False, False, {}
        _, reward, _, _, info = self.game.step(self._pixels())
        return self._observation(), reward, True, False, info

    def render(self) -> Any:
        """Return the picture as it is, enlarged eightfold."""
        return self._pixels().repeat(8, 0).repeat(8, 1) if self.render_mode == "rgb_array" else None

    def _pixels(self) -> NDArray[np.uint8]:
        clipped = np.clip(self._noisy, -1, 1).transpose(1, 2, 0)
        return np.rint((clipped + 1) * 127.5).astype(np.uint8)

    def _observation(self) -> dict[str, Any]:
        return {"prompt": self._prompt, "noisy": self._noisy.copy(), "steps_left": self._left}


def checked_picture(picture: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a picture as an array.

    Raises:
        UserError: it is of another shape, or its values are not whole numbers from 0 to 255.
    """
    found = np.asarray(picture)
    if found.shape != shape or found.dtype != np.uint8:
        raise UserError(
            f"Expected a picture of shape {shape} and type uint8. Received shape {found.shape} and type {found.dtype}"
        )
    return found
