"""Clips as files: H.264 in MP4, which every browser and player shows too; no simulator and no torch needed.

Small pictures, such as those of Atari games, are enlarged by a whole number first: the format keeps colours at half the
resolution.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, require

OPTIONS = {"crf": "18", "preset": "veryfast", "tune": "fastdecode"}  # sharp: what is lost is hard to see
SMALL = 320  # pixels: pictures of less height are enlarged
LARGE = 720  # pixels: the longer side of larger ones is halved until it is less
FORMAT = "mp4"
FILMS = "videos/steps"
"""Where a run's folder keeps films of the policy as it was after some steps, named by these."""
FILM = "videos/training.mp4"
"""And that of before, during and after training."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Frames to be shown."""

    frames: NDArray[np.uint8]
    """`(k, H, W, 3)`"""
    frames_per_second: float


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A clip as a file."""

    data: bytes
    width: int
    height: int
    num_frames: int


def encode_clip(frames: Iterable[NDArray[np.uint8]], frames_per_second: float) -> Encoded:
    """Compress pictures `(H, W, 3)` uint8, all of one size.

    Raises:
        MissingExtraError: PyAV is not installed.
        UserError: no frames.
    """
    av = require("av", "ui")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream, num_frames = None, 0
        for picture in frames:
            num_frames += 1
            fitted = _fitted(picture)
            if stream is None:
                rate = Fraction(frames_per_second).limit_denominator(1000)
                stream = file.add_stream("libx264", rate=rate, options=OPTIONS)
                stream.height, stream.width = fitted.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
            file.mux(stream.encode(av.VideoFrame.from_ndarray(fitted, format="rgb24")))
        if stream is None:
            raise UserError("A clip needs at least one frame; got none.")
        file.mux(stream.encode())
        width, height = stream.width, stream.height
    return Encoded(data=buffer.getvalue(), width=width, height=height, num_frames=num_frames)


def decode_clip(data: bytes, max_width: int | None = None) -> Pictures:
    """Rebuild the frames of `encode_clip`, enlarged as they may be, or of another film made smaller to `max_width`.

    Raises:
        MissingExtraError: PyAV is not installed.
        UserError: the bytes are damaged.
    """
    av = require("av", "ui")
    try:
        with av.open(io.BytesIO(data)) as file:
            stream = file.streams.video[0]
            stream.codec_context.thread_count = 1
            reformatter = av.video.reformatter.VideoReformatter()  # one: setting it up takes longer than a frame
            size: dict[str, int] = {}
            if max_width is not None and stream.width > max_width:
                size = {"width": max_width, "height": round(stream.height * max_width / stream.width)}
            frames = [reformatter.reformat(frame, format="rgb24", **size).to_ndarray() for frame in file.decode(stream)]
            rate = float(stream.average_rate or 30)
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise UserError(f"A clip of the record is damaged ({error}); it cannot be shown.") from error
    if not frames:
        raise UserError("A clip of the record is damaged (no frames); it cannot be shown.")
    return Pictures(frames=np.stack(frames), frames_per_second=rate)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge small pictures, halve very large ones, and make both sides even."""
    times = -(-SMALL // picture.shape[0])
    if times > 1:
        picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    while max(picture.shape[:2]) > LARGE:
        picture = picture[::2, ::2]
    rows, columns = picture.shape[0] % 2, picture.shape[1] % 2
    if rows or columns:
        picture = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)
