"""Videos of an agent: every frame with its learned and true reward drawn as curves beneath.

`write_video` makes an H.264 file that every browser plays, `write_gif` a small animation for a README. Several clips,
such as before, during and after training, follow one another or run side by side. All clips of a video share one scale
per reward, so that the curves of a better policy lie higher.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrl.control.rendering import EpisodeClip as EpisodeClip
from prefrl.control.rendering import choose_gl_backend as choose_gl_backend
from prefrl.control.rendering import fast_rendering as fast_rendering
from prefrl.control.rendering import follow_agent as follow_agent
from prefrl.control.rendering import record_episode as record_episode
from prefrl.errors import UserError, require

if TYPE_CHECKING:
    from PIL.Image import Image

LEARNED_COLOUR, TRUE_COLOUR = (0, 114, 178), (213, 94, 0)  # Okabe and Ito (2008): told apart by the colour-blind
INK, PALE_INK, PAPER, GRID = (40, 40, 40), (110, 110, 110), (248, 248, 248), (222, 222, 222)
READABLE_WIDTH = 200  # pixels of one clip
GAP = 8  # pixels between clips side by side
SMOOTH = 2  # curves are drawn this much larger and scaled down

Range = tuple[float, float]
TitledClip = tuple[str, EpisodeClip]


def write_video(
    path: str | Path,
    clips: Sequence[TitledClip],
    fps: float,
    *,
    side_by_side: bool = False,
    max_width: int | None = None,
    true_name: str = "true",
) -> None:
    """Write clips as one H.264 (yuv420p) video.

    Args:
        path: the file to write, normally `.mp4`; it appears whole or not at all.
        clips: titles and clips, e.g. `[("before training", clip)]`.
        fps: frames per second.
        side_by_side: show all at once, the shorter ones resting on their last frame; otherwise one after another.
        max_width: pictures are scaled so that the video is at most this wide, in pixels.
        true_name: what to call the environment's own reward.

    Raises:
        MissingExtraError: imageio-ffmpeg or Pillow is not installed.
        UserError: no clips, or the file cannot be written.
    """
    ffmpeg = require("imageio_ffmpeg", "train")
    hold = round(fps / 2)
    frames = compose(clips, side_by_side=side_by_side, max_width=max_width, hold_frames=hold, true_name=true_name)
    first = next(frames)
    settings = ["-preset", "veryfast", "-crf", "23", "-movflags", "+faststart"]
    with _replacing(Path(path), ".mp4") as partial:
        writer = ffmpeg.write_frames(
            str(partial),
            first.size,
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=1,  # the size is even already; the default would rescale
            output_params=settings,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        writer.send(first.tobytes())
        for frame in frames:
            writer.send(frame.tobytes())
        writer.close()


def write_gif(
    path: str | Path,
    clips: Sequence[TitledClip],
    fps: float,
    *,
    side_by_side: bool = False,
    max_width: int = 480,
    max_fps: float = 12.5,
    num_colours: int = 64,
    true_name: str = "true",
) -> None:
    """Write clips as a small endless GIF.

    Args:
        path: the file to write; it appears whole or not at all.
        clips: titles and clips.
        fps: frames per second at which the clips play at true speed.
        side_by_side: show all at once; otherwise one after another.
        max_width: pictures are scaled so that the animation is at most this wide, in pixels.
        max_fps: frames are left out so that no more than about this many are shown per second.
        num_colours: size of the palette, 2 to 256.
        true_name: what to call the environment's own reward.

    Raises:
        MissingExtraError: Pillow is not installed.
        UserError: no clips, or the file cannot be written.
    """
    image = require("PIL.Image", "train")
    every = max(1, round(fps / max_fps))
    hold = round(fps)
    composed = compose(clips, side_by_side=side_by_side, max_width=max_width, hold_frames=hold, true_name=true_name)
    frames = [frame for index, frame in enumerate(composed) if index % every == 0]
    sample = frames[:: max(1, len(frames) // 6)]
    sheet = image.new("RGB", (sample[0].width, sample[0].height * len(sample)))
    for index, frame in enumerate(sample):
        sheet.paste(frame, (0, index * frame.height))
    palette = sheet.quantize(num_colours, method=image.Quantize.MEDIANCUT)
    small = [frame.quantize(palette=palette, dither=image.Dither.NONE) for frame in frames]
    milliseconds = 10 * max(2, round(100 * every / fps))  # GIF counts hundredths; browsers slow down below two
    with _replacing(Path(path), ".gif") as partial:
        small[0].save(partial, save_all=True, append_images=small[1:], duration=milliseconds, loop=0, disposal=1)


def compose(
    clips: Sequence[TitledClip],
    *,
    side_by_side: bool = False,
    max_width: int | None = None,
    hold_frames: int = 0,
    true_name: str = "true",
) -> Iterator[Image]:
    """Yield the frames of a video, all of one even size; every clip ends with `hold_frames` of its last frame.

    The environment's own reward is called `true_name`.

    Raises:
        UserError: no clips, or `max_width` is too narrow for them.
    """
    if not clips:
        raise UserError("A video needs at least one clip; got none.")
    image = require("PIL.Image", "train")
    height = max(clip.frames.shape[1] for _, clip in clips)
    widths = [clip.frames.shape[2] * height / clip.frames.shape[1] for _, clip in clips]
    total = sum(widths) if side_by_side else max(widths)
    gaps = GAP * (len(clips) - 1) if side_by_side else 0
    scale = float(math.ceil(READABLE_WIDTH / min(widths)))  # small pictures are enlarged: the text needs room
    if max_width is not None:
        scale = min(scale, (max_width - gaps) / total)
    if scale * min(widths) < 16:
        raise UserError(f"max_width={max_width} leaves no room for {len(clips)} clips. Give more.")
    learned_range = _range([c.learned_rewards for _, c in clips])
    true_range = _range([c.true_rewards for _, c in clips])
    panels = []
    for (title, clip), width in zip(clips, widths, strict=True):
        size = (max(2, int(width * scale)), max(2, int(height * scale)))
        panels.append(_Panel(title, clip, size, learned_range, true_range, true_name))
    whole = sum(p.width for p in panels) + gaps if side_by_side else max(p.width for p in panels)
    size = (whole + whole % 2, panels[0].height + panels[0].height % 2)
    groups = [panels] if side_by_side else [[panel] for panel in panels]
    for group in groups:
        frame = image.new("RGB", size, PAPER)
        for step in range(max(len(panel.clip.frames) for panel in group)):
            frame = image.new("RGB", size, PAPER)
            left = 0 if side_by_side else (size[0] - group[0].width) // 2
            for panel in group:
                frame.paste(panel.draw(min(step, len(panel.clip.frames) - 1)), (left, 0))
                left += panel.width + GAP
            yield frame
        for _ in range(hold_frames):
            yield frame


def _range(series: Sequence[NDArray[np.float64] | None]) -> Range | None:
    """Return the range of values to draw, without the most extreme half per cent on either side."""
    values = np.concatenate([values for values in series if values is not None] or [np.zeros(0)])
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return None
    low, high = np.percentile(known, [0.5, 99.5]).tolist()
    return (low, high) if high > low else (low - 1.0, high + 1.0)


@dataclass
class _Curve:
    name: str
    values: NDArray[np.float64]
    scale: Range
    colour: tuple[int, int, int]


class _Panel:
    """One clip: title above, picture, returns so far and curves beneath."""

    def __init__(
        self,
        title: str,
        clip: EpisodeClip,
        size: tuple[int, int],
        learned_range: Range | None,
        true_range: Range | None,
        true_name: str,
    ) -> None:
        self.title, self.clip, self.size = title, clip, size
        self._image, self._draw = require("PIL.Image", "train"), require("PIL.ImageDraw", "train")
        fonts = require("PIL.ImageFont", "train")
        unit = min(2.0, max(0.75, size[0] / 320))
        self._font, self._small = fonts.load_default(round(12 * unit)), fonts.load_default(round(9 * unit))
        self._pad, self._line, self._plot_height = round(6 * unit), round(19 * unit), round(52 * unit)
        self.width = size[0]
        self.height = self._line + size[1] + self._line + self._plot_height + self._pad
        self._curves = []
        if clip.learned_rewards is not None and learned_range is not None:
            self._curves.append(_Curve("learned", clip.learned_rewards, learned_range, LEARNED_COLOUR))
        if true_range is not None and np.isfinite(clip.true_rewards).all():  # else it is not known
            self._curves.append(_Curve(true_name, clip.true_rewards, true_range, TRUE_COLOUR))
        widths = [self._text_width(_short(x)) for curve in self._curves for x in curve.scale]
        self._margin = max(widths, default=0) + self._pad
        self._background = self._empty_panel()
        plot_size = ((self.width - 2 * self._margin) * SMOOTH, self._plot_height * SMOOTH)
        self._plot = self._image.new("RGB", (max(SMOOTH, plot_size[0]), plot_size[1]), PAPER)
        ink = self._draw.Draw(self._plot)
        for share in (0.0, 0.5, 1.0):
            y = share * (plot_size[1] - SMOOTH)
            ink.line([(0, y), (plot_size[0], y)], fill=GRID, width=SMOOTH)
        self._drawn = 0

    def _text_width(self, text: str) -> int:
        return round(self._small.getlength(text))

    def _empty_panel(self) -> Image:
        panel: Image = self._image.new("RGB", (self.width, self.height), PAPER)
        ink = self._draw.Draw(panel)
        ink.text((self._pad, self._line // 2), self.title, INK, self._font, anchor="lm")
        top = 2 * self._line + self.size[1]
        for curve in self._curves:
            left = curve.name == "learned"
            x = self._margin - 3 if left else self.width - self._margin + 3
            for y, value, edge in ((top, curve.scale[1], "t"), (top + self._plot_height, curve.scale[0], "b")):
                ink.text((x, y), _short(value), curve.colour, self._small, anchor=("r" if left else "l") + edge)
        return panel

    def draw(self, step: int) -> Image:
        """Return the panel after `step` (from 0); steps must not go back."""
        panel = self._background.copy()
        picture: Image = self._image.fromarray(self.clip.frames[step])
        panel.paste(picture if picture.size == self.size else picture.resize(self.size), (0, self._line))
        ink = self._draw.Draw(panel)
        count = f"step {step + 1}"
        ink.text((self.width - self._pad, self._line // 2), count, PALE_INK, self._font, anchor="rm")
        y = self._line + self.size[1] + self._line // 2
        for x, curve in zip((self._pad, self.width // 2), self._curves, strict=False):
            text = f"{curve.name} return {_short(float(curve.values[: step + 1].sum()))}"
            ink.text((x, y), text, curve.colour, self._font, anchor="lm")
        self._extend_curves(step)
        plot = self._plot.resize((max(1, self.width - 2 * self._margin), self._plot_height), self._image.Resampling.BOX)
        top = 2 * self._line + self.size[1]
        panel.paste(plot, (self._margin, top))
        for curve in self._curves:
            px, py = self._point(curve, step)
            px, py, r = self._margin + px / SMOOTH, top + py / SMOOTH, self._pad / 2.2
            ink.ellipse([px - r, py - r, px + r, py + r], fill=curve.colour)
        return panel

    def _extend_curves(self, step: int) -> None:
        ink = self._draw.Draw(self._plot)
        for at in range(self._drawn, step):
            for curve in self._curves:
                ink.line([self._point(curve, at), self._point(curve, at + 1)], fill=curve.colour, width=2 * SMOOTH)
        self._drawn = max(self._drawn, step)

    def _point(self, curve: _Curve, step: int) -> tuple[float, float]:
        width, height = self._plot.size
        low, high = curve.scale
        share = min(1.0, max(0.0, (float(curve.values[step]) - low) / (high - low)))
        edge = 2 * SMOOTH  # room for the line's own thickness
        return (step / max(1, len(curve.values) - 1) * (width - 1), edge + (1 - share) * (height - 1 - 2 * edge))


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


@contextmanager
def _replacing(path: Path, suffix: str) -> Iterator[Path]:
    """Give a neighbour of `path` to write to; it takes the place of `path` if all goes well, and is removed if not."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # ffmpeg missing or failing: RuntimeError or OSError
        reason: Any = getattr(error, "strerror", None) or error
        raise UserError(f"Could not write {path}: {reason}. Free some space or choose another folder.") from error
    finally:
        with suppress(OSError):  # nothing there, or no folder to hold it
            partial.unlink()
