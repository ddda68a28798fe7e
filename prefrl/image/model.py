"""Text-to-image models: our small ones, trained from nothing, and pipelines of `diffusers` from a folder or the hub.

`ImageModel` is what everything else sees: prompts become conditions, a network predicts, and numbers become pictures.
Ours draws pixels: a multimodal diffusion transformer (Esser et al. 2024) on patches, which a processor computes several
times faster than a UNet of the same size, beside a small CLIP text encoder. Of pipelines, the kinds of Stable Diffusion
are taken: a text encoder, a UNet that sees its hidden states, an autoencoder.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prefrl.errors import UserError, first_line, require
from prefrl.files import read_json
from prefrl.image.diffusion import Schedule

OWN = "prefrl_image.json"
"""In a folder of a model of ours."""
TIMES = 1000


@dataclass(frozen=True)
class Shape:
    """The size of a model of ours."""

    width: int
    layers: int
    heads: int
    patch: int


SHAPES = {"tiny": Shape(32, 2, 2, 4), "demo": Shape(96, 3, 3, 4), "small": Shape(192, 6, 6, 2)}


@dataclass(frozen=True)
class Condition:
    """What a network is told: hidden states of prompts `(B, L, D)` and which of them count `(B, L)`."""

    states: Tensor
    mask: Tensor

    def rows(self, indices: Tensor) -> Condition:
        """Return some of them."""
        return Condition(self.states[indices], self.mask[indices])

    def repeat(self, times: int) -> Condition:
        """Return each `times` times, one after the other."""
        return Condition(self.states.repeat_interleave(times, 0), self.mask.repeat_interleave(times, 0))


class ImageModel(nn.Module):
    """A text-to-image model.

    Args:
        denoiser: the network.
        text: the encoder of prompts.
        tokenizer: turns prompts into ids.
        scheduler: of `diffusers`, whose configuration says how noise rises.
        vae: autoencoder between pictures and latents; None: the network draws pixels.
        guidance: weight of the prompt over none (classifier-free guidance, Ho and Salimans 2022); 1: none.
    """

    def __init__(
        self, denoiser: nn.Module, text: nn.Module, tokenizer: Any, scheduler: Any, vae: nn.Module | None = None,
        guidance: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.denoiser, self.text, self.tokenizer, self.scheduler, self.vae = denoiser, text, tokenizer, scheduler, vae
        self.guidance = guidance
        self.pipeline: Any = None
        if vae is not None:
            vae.requires_grad_(False)

    @property
    def is_own(self) -> bool:
        """Whether it is a model of ours, not a pipeline of `diffusers`."""
        return self.vae is None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of what the network sees."""
        config: Any = self.denoiser.config
        return int(config.in_channels), int(config.sample_size), int(config.sample_size)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Rows, columns and 3 of the pictures."""
        _, rows, columns = self.shape
        factor = 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)  # type: ignore[union-attr, arg-type]
        return rows * factor, columns * factor, 3

    def schedule(self, num_steps: int) -> Schedule:
        """Return the steps of sampling."""
        return Schedule.of(self.scheduler.config, num_steps)

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Return what the network is told of prompts."""
        length = min(int(self.text.config.max_position_embeddings), int(self.tokenizer.model_max_length))  # type: ignore[union-attr, arg-type]
        told = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(self.device)
        if self.is_own:
            states = self.text(told.input_ids, attention_mask=told.attention_mask).last_hidden_state
            return Condition(states, told.attention_mask)
        states = self.text(told.input_ids).last_hidden_state  # as Stable Diffusion was trained: the padding counts
        return Condition(states, torch.ones_like(told.input_ids))

    def tell_what_is_lost(self, prompts: Sequence[str]) -> None:
        """Warn of words that the model does not know, and of prompts that are longer than it reads."""
        room = min(int(self.text.config.max_position_embeddings), int(self.tokenizer.model_max_length))  # type: ignore[union-attr, arg-type]
        unique = sorted(set(prompts))
        ids = self.tokenizer(unique, truncation=False).input_ids
        unknown = self.tokenizer.unk_token_id if self.is_own else None
        strange = [prompt for prompt, row in zip(unique, ids, strict=True) if unknown is not None and unknown in row]
        long = [prompt for prompt, row in zip(unique, ids, strict=True) if len(row) > room]
        for some, why in ((strange, "have words that the model does not know"), (long, f"are cut after {room} tokens")):
            if some:
                warnings.warn(f"{len(some)} of {len(unique)} prompts {why}: {some[0][:60]!r}", stacklevel=3)

    def predict(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """Return what the network says of `x` `(B, C, H, W)` at time steps `(B,)`."""
        times = times.to(x.device)
        if self.guidance == 1.0:
            return self._say(x, times, condition)
        nothing = self.encode([""]).rows(torch.zeros(len(x), dtype=torch.long, device=x.device))
        both = Condition(torch.cat([nothing.states, condition.states]), torch.cat([nothing.mask, condition.mask]))
        without, with_it = self._say(torch.cat([x, x]), torch.cat([times, times]), both).chunk(2)
        return without + self.guidance * (with_it - without)

    def _say(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        if not self.is_own:
            said: Tensor = self.denoiser(x, times, encoder_hidden_states=condition.states).sample
            return said
        mask = condition.mask[..., None].to(condition.states.dtype)
        whole = (condition.states * mask).sum(1) / mask.sum(1)
        said = self.denoiser(x, encoder_hidden_states=condition.states, pooled_projections=whole, timestep=times).sample
        return said

    def decode(self, x: Tensor) -> Tensor:
        """Return pictures as numbers from -1 to 1, `(B, 3, H, W)`, not yet clipped; gradients pass."""
        if self.vae is None:
            return x
        decoded: Tensor = self.vae.decode(x / self.vae.config.scaling_factor).sample  # type: ignore[operator, union-attr]
        return decoded

    def to_pixels(self, x: Tensor) -> NDArray[np.uint8]:
        """Return pictures `(B, H, W, 3)` uint8."""
        with torch.no_grad():
            return to_uint8(self.decode(x))

    def from_pixels(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return what the network sees of pictures `(B, H, W, 3)`."""
        if pictures.shape[1:] != self.picture_shape:
            raise UserError(f"The model draws pictures of shape {self.picture_shape}. Received {pictures.shape[1:]}")
        x = to_floats(pictures).to(self.device)
        if self.vae is None:
            return x
        with torch.no_grad():
            latents: Tensor = self.vae.encode(x).latent_dist.mode() * self.vae.config.scaling_factor  # type: ignore[operator, union-attr]
        return latents

    def copy(self) -> Self:
        """Return a frozen copy: what KL and references are taken against."""
        return copy.deepcopy(self).requires_grad_(False).eval()

    def trained(self) -> list[nn.Parameter]:
        """Return the weights that fine-tuning changes: the network's, not those of the text encoder or autoencoder."""
        return [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]

    def save(self, folder: Path) -> None:
        """Write the model: ours as its parts, a pipeline as `diffusers` loads it."""
        if self.pipeline is not None:
            self.pipeline.save_pretrained(folder)
            return
        self.denoiser.save_pretrained(folder / "denoiser")  # type: ignore[operator]
        self.text.save_pretrained(folder / "text")  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        (folder / OWN).write_text(json.dumps({"version": 1, "guidance": self.guidance}) + "\n")

    @classmethod
    def load(cls, name: str, *, guidance: float | None = None) -> ImageModel:
        """Load a model.

        Args:
            name: folder of a model of ours, a run of `prefrl image`, a pipeline's folder, or its id on the hub.
            guidance: in place of the model's own: ours 1, pipelines 7.5.

        Raises:
            UserError: there is none, it cannot be read, or it is a pipeline of another kind.
        """
        require("diffusers", "image")
        folder = Path(name)
        if (folder / "config.json").is_file() and (folder / "model").is_dir():
            folder = folder / "model"
        if not is_there(name):
            raise UserError(f"The image model {name} cannot be loaded: there is no such folder.")
        try:
            model = cls._load_own(folder) if (folder / OWN).is_file() else cls._load_pipeline(str(folder), name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"The image model {name} cannot be loaded: {type(error).__name__}: {first_line(error)} Give the folder "
                "of a run of prefrl image, or a pipeline of diffusers of the kinds of Stable Diffusion."
            ) from error
        if guidance is not None:
            model.guidance = guidance
        for key, value in model.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise UserError(f"The image model {name} is damaged: its weights {key} hold NaN or infinity.")
        return model

    @classmethod
    def _load_own(cls, folder: Path) -> ImageModel:
        from diffusers import DDIMScheduler, SD3Transformer2DModel
        from transformers import CLIPTextModel, PreTrainedTokenizerFast

        own = read_json(folder / OWN)
        return cls(
            SD3Transformer2DModel.from_pretrained(folder / "denoiser", use_safetensors=True),
            CLIPTextModel.from_pretrained(folder / "text", use_safetensors=True),
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            DDIMScheduler.from_pretrained(folder / "scheduler"),
            guidance=float(own["guidance"]),
        )

    @classmethod
    def _load_pipeline(cls, place: str, name: str) -> ImageModel:
        from diffusers import DiffusionPipeline

        found = place if Path(place).exists() else name
        pipeline = DiffusionPipeline.from_pretrained(found, safety_checker=None, use_safetensors=True)  # no pickles
        missing = [
            part for part in ("unet", "text_encoder", "tokenizer", "vae", "scheduler") if not hasattr(pipeline, part)
        ]
        if missing or getattr(pipeline, "text_encoder_2", None) is not None:
            raise UserError(
                f"{name} is a {type(pipeline).__name__}; taken are pipelines of the kinds of Stable Diffusion 1 and 2: "
                "a UNet, one text encoder and an autoencoder."
            )
        model = cls(
            pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.scheduler, pipeline.vae, guidance=7.5
        )
        model.text.requires_grad_(False)
        model.pipeline = pipeline
        return model


def is_there(name: str) -> bool:
    """Tell whether a model is a folder that is there, or may be an id of the hub."""
    return Path(name).exists() or (name.count("/") == 1 and not name.startswith((".", "/")))


def build_model(shape: Shape, captions: Sequence[str], size: int, *, seed: int) -> ImageModel:
    """Return a model of ours with random weights, its words those of the captions.

    Args:
        shape: its size.
        captions: texts whose words it knows.
        size: pixels of a side.
        seed: of the weights.
    """
    require("diffusers", "image")
    from diffusers import DDIMScheduler, SD3Transformer2DModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    words = sorted({word for caption in captions for word in caption.lower().split()})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unknown>", *words])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    longest = max(len(caption.split()) for caption in captions)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        unk_token="<unknown>",
        model_max_length=longest,
    )
    if size % shape.patch:
        raise UserError(f"Pictures of {size} pixels do not fall into patches of {shape.patch}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=longest, pad_token_id=0, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
        denoiser: Any = SD3Transformer2DModel(
            sample_size=size, patch_size=shape.patch, in_channels=3, out_channels=3, num_layers=shape.layers,
            attention_head_dim=shape.width // shape.heads, num_attention_heads=shape.heads, joint_attention_dim=64,
            caption_projection_dim=shape.width, pooled_projection_dim=64, pos_embed_max_size=size // shape.patch,
            qk_norm="rms_norm",
        )  # fmt: skip
    scheduler = DDIMScheduler(
        num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )
    return ImageModel(denoiser, text, tokenizer, scheduler)


def to_floats(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures `(B, H, W, 3)` uint8 as `(B, 3, H, W)` from -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """Return `(B, 3, H, W)` from -1 to 1 as pictures `(B, H, W, 3)` uint8, clipped."""
    pixels: NDArray[np.uint8] = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels
