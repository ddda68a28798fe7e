"""`prefrl image` from nothing to every method on a tiny model; exact resume; adapters; a pipeline of diffusers."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.image import jobs
from prefrl.image.denoising import DenoisingSettings, DenoisingTrainer
from prefrl.image.evaluation import draw
from prefrl.image.folder import ImageFolder
from prefrl.image.jobs import DDPOJob, Place, PretrainJob, RewardJob, Watch, resume, start
from prefrl.image.lora import LoraSettings
from prefrl.image.model import ImageModel
from prefrl.image.policy import PolicySettings, PolicyTrainer
from prefrl.image.reward_model import RewardModel, RewardTrainer, RewardTrainingSettings
from prefrl.runs.guard import Interrupted

FEW = ["--sampling-steps", "4", "--device", "cpu"]
WATCH = ["--watch.times", "1", "--watch.prompts", "4", "--watch.images", "2"]


def image(*arguments: str) -> int:
    return main(["image", *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained model, comparisons of its pictures, a reward model."""
    folder = tmp_path_factory.mktemp("image")
    base, data = str(folder / "base"), str(folder / "data")
    assert not image(
        "pretrain", "--size", "tiny", "--pictures", "256", "--training.epochs", "2", "--out", base, *FEW, *WATCH
    )
    assert not image("compare", base, "--num", "24", "--images", "2", "--out", data, "--sampling-steps", "4")
    assert not image(
        "reward", "--model", base, "--data", data, "--training.epochs", "2", "--training.members", "2",
        "--references", "16", "--captions", "256", "--training.caption-epochs", "1", *FEW,
        "--out", str(folder / "reward"),
    )  # fmt: skip
    return folder


def weights_of(place: Path) -> dict[str, torch.Tensor]:
    return dict(ImageModel.load(str(place)).denoiser.state_dict())


def changed(place: Path, base: Path) -> bool:
    before, after = weights_of(base), weights_of(place)
    assert before.keys() == after.keys()
    return any(not torch.equal(before[name], after[name]) for name in before)


POLICY = [
    "--training.steps",
    "2",
    "--training.prompts",
    "2",
    "--training.images",
    "2",
    "--training.minibatch-size",
    "8",
]
METHODS = {
    "ddpo": POLICY,
    "dpok": POLICY,
    "rwr": ["--prompts", "8", "--images", "2", "--kept", "16", "--training.epochs", "1", "--training.batch-size", "8"],
    "refl": ["--kept", "16", "--training.steps", "2", "--training.batch-size", "4"],
    "dpo": ["--training.epochs", "1", "--training.batch-size", "8"],
}


@pytest.mark.parametrize("verb", list(METHODS))
def test_every_method_trains_and_leaves_what_every_run_has(verb: str, made: Path, tmp_path: Path, capsys: Any) -> None:
    source = ["--data", str(made / "data")] if verb == "dpo" else ["--reward", str(made / "reward")]
    out = tmp_path / verb
    assert not image(verb, "--model", str(made / "base"), *source, *METHODS[verb], *FEW, *WATCH, "--out", str(out))
    folder = ImageFolder.open(out)
    assert folder.finished and changed(out, made / "base")
    rows = folder.read_evaluations()
    assert [row["step"] for row in rows] == [0, folder.read_metrics()[-1]["step"]]
    assert rows[0]["kl_nats"] == 0.0 and rows[-1]["kl_nats"] > 0.0
    assert {"gold", "diversity", "right_all", "brightness"} <= rows[-1].keys()
    assert (out / "samples" / "00.png").is_file() and (out / "samples" / "01.png").is_file()
    capsys.readouterr()
    assert not main(["report", str(out), "--json"])
    assert json.loads(capsys.readouterr().out)["summary"]["gold"] == rows[-1]["gold"]
    assert not image("evaluate", str(out), "--prompts", "2", "--images", "2", "--json", "--sampling-steps", "4")
    assert json.loads(capsys.readouterr().out)["kl_nats"] > 0
    with pytest.raises(UserError, match="is finished"):
        resume(out)


def test_pictures_are_drawn_and_the_best_of_several_kept(made: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "pictures.png"
    assert not image(
        "sample", str(made / "base"), "--num", "2", "--images", "2", "--best-of", "2", "--reward", "gold",
        "--out", str(out), "--sampling-steps", "4",
    )  # fmt: skip
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert "row 2: " in capsys.readouterr().out


def job(made: Path) -> DDPOJob:
    return DDPOJob(
        model=str(made / "base"), reward=str(made / "reward"), place=Place(sampling_steps=4, device="cpu"),
        watch=Watch(times=2, prompts=2, images=2),
        training=PolicySettings(steps=4, prompts=2, images=2, minibatch_size=8, baseline="value", beta=0.01),
    )  # fmt: skip


def start_and_stop(wanted: Any, out: Path, trainer: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a job, and interrupt it once its trainer has made so many steps."""
    step = trainer.step

    def stops(self: Any) -> Any:
        metrics = step(self)
        if self.num_steps == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "step", stops)
        with pytest.raises(Interrupted):
            start(wanted, out, quiet=True)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start(job(made), tmp_path / "whole", quiet=True)
    start_and_stop(job(made), tmp_path / "parts", PolicyTrainer, 2, monkeypatch)
    assert not main(["resume", str(tmp_path / "parts"), "--quiet"])
    parts = ImageFolder.open(tmp_path / "parts")
    for one, other in zip(whole.read_metrics(), parts.read_metrics(), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert whole.read_evaluations() == parts.read_evaluations()
    first, second = weights_of(whole.path), weights_of(parts.path)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pretraining_with_an_average_of_weights_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = PretrainJob(
        size="tiny", pictures=64, place=Place(sampling_steps=2, device="cpu"),
        watch=Watch(times=2, prompts=2, images=2), training=DenoisingSettings(epochs=4, batch_size=16, ema=0.9),
    )  # fmt: skip
    whole = start(wanted, tmp_path / "whole", quiet=True)
    start_and_stop(wanted, tmp_path / "parts", DenoisingTrainer, 7, monkeypatch)
    parts = resume(tmp_path / "parts", quiet=True)
    first, second = weights_of(whole.path), weights_of(parts.path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.read_evaluations() == parts.read_evaluations()  # of the average, also the one after the stop


@pytest.mark.parametrize("stop", [2, 4, 6], ids=["among captions", "between", "among rankings"])
def test_a_reward_that_was_stopped_goes_on_exactly(
    stop: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = RewardJob(
        model=str(made / "base"), data=str(made / "data"), captions=128, references=8,
        place=Place(sampling_steps=2, device="cpu"),
        training=RewardTrainingSettings(epochs=4, batch_size=8, members=2, width=8, caption_epochs=2),
    )  # fmt: skip
    whole = start(wanted, tmp_path / "whole", quiet=True)
    start_and_stop(wanted, tmp_path / "parts", RewardTrainer, stop, monkeypatch)
    rows = whole.read_metrics()
    assert ["caption_loss" in row for row in rows] == [True] * 4 + [False] * (len(rows) - 4)
    parts = resume(tmp_path / "parts", quiet=True)
    first, second = (RewardModel.load(str(folder.path)).scorers.state_dict() for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["0.score.0.weight"], first["1.score.0.weight"]
    )  # each learned from rankings of its own


def test_a_reward_on_prompts_of_no_world_says_that_it_saw_no_captions(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    file = tmp_path / "data" / "rankings.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "prompt": f"a cat {i % 3}"}) + "\n" for i, row in enumerate(rows)))
    wanted = RewardJob(
        model=str(made / "base"), data=str(tmp_path / "data"), references=8,
        place=Place(sampling_steps=2, device="cpu"), training=RewardTrainingSettings(epochs=1, members=1, width=8),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="learns from the rankings alone, without captioned pictures first"):
        assert start(wanted, tmp_path / "reward", quiet=True).finished


def test_a_run_is_resumed_from_anywhere_but_not_on_changed_data(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "reward", tmp_path / "reward")
    step = PolicyTrainer.step

    def stops(self: PolicyTrainer) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(PolicyTrainer, "step", stops)
        with pytest.raises(Interrupted):
            start(replace(job(made), reward="reward"), Path("run"), quiet=True)
    monkeypatch.chdir("/")
    file = tmp_path / "reward" / "model" / "reward.json"
    before = file.read_text()
    file.write_text(before + " ")
    with pytest.raises(UserError, match="was changed or is gone since it began: reward"):
        resume(tmp_path / "run", quiet=True)
    file.write_text(before)
    assert resume(tmp_path / "run", quiet=True).finished


def test_words_that_a_model_does_not_know_are_said(made: Path, tmp_path: Path) -> None:
    model = ImageModel.load(str(made / "base"))
    with pytest.warns(UserWarning, match="1 of 2 prompts have words that the model does not know"):
        draw(model, ["one red square on the left", "one purple square"], 2, seed=0)
    with pytest.warns(UserWarning, match="are cut after"):
        draw(model, ["one red square on the left on the left on the left"], 2, seed=0)


def test_adapters_train_alone_and_are_merged_at_the_end(made: Path, tmp_path: Path) -> None:
    folder = start(
        DDPOJob(
            model=str(made / "base"), reward="gold", lora=LoraSettings(rank=2),
            place=Place(sampling_steps=4, device="cpu"),
            watch=Watch(times=0), training=PolicySettings(steps=2, prompts=2, images=2, minibatch_size=8),
        ),
        tmp_path / "lora",
        quiet=True,
    )  # fmt: skip
    before, after = weights_of(made / "base"), weights_of(folder.path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("attn" in name and name.endswith(".weight") for name in moved)


NONSENSE: list[tuple[list[str], str]] = [
    (["ddpo", "--model", "BASE", "--reward", "nothing"], "There is no image reward model in nothing"),
    (["ddpo", "--model", "nowhere", "--reward", "gold"], "cannot be loaded"),
    (["ddpo", "--model", "BASE", "--reward", "gold", "--training.images", "1"], "at least 2 images"),
    (["refl", "--model", "BASE", "--reward", "gold"], "follows the gradient of a reward model"),
    (["dpo", "--model", "BASE", "--data", "nothing"], "There are no rankings in nothing"),
    (["dpo", "--model", "BASE", "--data", "nothing.sqlite"], "There is no record"),
    (["pretrain", "--size", "huge"], "size must be one of"),
    (["pretrain", "--world", "nonsense"], "image world"),
    (["ddpo", "--model", "BASE", "--reward", "gold", "--sampling-steps", "0"], "from 1 to 1000 steps"),
    (["rwr", "--model", "BASE", "--reward", "gold", "--temperature", "0"], "temperature must be above 0"),
]


@pytest.mark.parametrize(("arguments", "said"), NONSENSE, ids=[" ".join(words[:5]) for words, _ in NONSENSE])
def test_nonsense_is_refused_in_a_sentence(
    arguments: list[str], said: str, made: Path, tmp_path: Path, capsys: Any
) -> None:
    given = [str(made / "base") if word == "BASE" else word for word in arguments]
    assert image(*given, "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_reward_function_that_gives_nonsense_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef short(prompts, pictures):\n    return np.zeros(1)\n"
        "def nan(prompts, pictures):\n    return np.full(len(prompts), np.nan)\n"
    )
    for name, said in (("short", "one score for each of 4 pictures"), ("nan", "not finite")):
        wrong = DDPOJob(
            model=str(made / "base"), reward=f"{tmp_path / 'mine.py'}:{name}", watch=Watch(times=0),
            place=Place(sampling_steps=4, device="cpu"), training=PolicySettings(steps=1, prompts=2, images=2),
        )  # fmt: skip
        with pytest.raises(UserError, match=said):
            start(wrong, tmp_path / name, quiet=True)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the shape of Stable Diffusion with random weights: pictures of 16 x 16 from latents of 8 x 8."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<unknown>", "red", "square", "on", "the", "left", "one"])}
    tokens = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    made = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4, sample_size=16,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=8, pad_token_id=0, bos_token_id=0, eos_token_id=0,
            )
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokens, pad_token="<pad>", unk_token="<unknown>", model_max_length=8
        ),
        unet=UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4, cross_attention_dim=16,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
        ),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("verb", ["ddpo", "dpok", "rwr", "refl", "dpo"])
def test_a_pipeline_of_diffusers_goes_through_every_method(verb: str, pipeline: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    base, data, reward = str(pipeline), str(tmp_path / "data"), str(tmp_path / "reward")
    if verb != "ddpo":
        assert not image("compare", base, "--num", "12", "--out", data, "--sampling-steps", "2")
    if verb in ("refl", "dpok"):
        assert not image(
            "reward", "--model", base, "--data", data, "--training.epochs", "1", "--references", "4", "--out", reward,
            "--sampling-steps", "2",
        )  # fmt: skip
    source = {"dpo": ["--data", data], "ddpo": ["--reward", "gold"], "rwr": ["--reward", "gold"]}
    out = tmp_path / verb
    few = ["--sampling-steps", "2", "--device", "cpu", *WATCH]
    lora = ["--lora.rank", "2"] if verb == "ddpo" else []
    given = source.get(verb, ["--reward", reward])
    assert not image(verb, "--model", base, *given, *METHODS[verb], *few, *lora, "--out", str(out))
    assert changed(out, pipeline)
    again = StableDiffusionPipeline.from_pretrained(out / "model", safety_checker=None)
    picture = again("one red square on the left", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (16, 16, 3) and np.isfinite(picture).all()


def test_a_damaged_model_is_refused_with_its_name(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "base" / "model", tmp_path / "model")
    file = next((tmp_path / "model" / "denoiser").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        ImageModel.load(str(tmp_path / "model"))


def test_other_verbs_say_what_an_image_run_is(made: Path, capsys: Any) -> None:
    for verb, said in (("video", "nothing to film"), ("evaluate", "prefrl image evaluate"), ("fit", "prefrl image")):
        assert main([verb, str(made / "base")]) == 2
        assert said in capsys.readouterr().err
    assert set(jobs.JOBS) == {"pretrain", "reward", "ddpo", "dpok", "rwr", "refl", "dpo"}


@pytest.mark.slow
def test_the_demo_is_made_whole_and_goes_on_where_it_stopped(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "demo"
    few = [
        "--size", "tiny", "--pictures", "128", "--pretraining-epochs", "1", "--comparisons", "24", "--steps", "1",
        "--sampling-steps", "3", "--watch.times", "1", "--watch.prompts", "4", "--watch.images", "2", "--device", "cpu",
    ]  # fmt: skip
    (out / "comparisons").mkdir(parents=True)
    (out / "comparisons" / "left").touch()  # of a demo that was killed while it drew
    assert not image("demo", "--out", str(out), *few)
    said = capsys.readouterr().out
    methods = ("dpok", "dpok-no-kl", "ddpo", "ddpo-kl", "rwr", "refl", "dpo")
    assert all(f"{name}: " in said and ImageFolder.open(out / name).finished for name in methods)
    assert "Best gold, from the highest: " in said and "best of n" in said
    assert (out / "curve.png").is_file() and (out / "pictures.png").is_file()
    shutil.rmtree(out / "dpo")
    (out / "quality.json").unlink()
    assert not image("demo", "--out", str(out), *few, "--jobs", "1")
    again = capsys.readouterr().out
    assert "dpo: " in again and "dpok: " not in again and "base: " not in again
    assert image("demo", "--out", str(out), *few, "--seed", "1") == 2
    assert "holds a demo with other settings" in capsys.readouterr().err


def test_what_cannot_be_is_refused_before_a_folder_is_made(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    for words, said in (
        (["demo", "--size", "huge"], "size must be one of tiny, demo, small"),
        (["demo", "--pictures", "0"], "pictures must be at least 1"),
        (["demo", "--jobs", "0"], "jobs must be at least 1"),
        (["pretrain", "--size", "huge"], "size must be one of tiny, demo, small"),
        (["reward", "--model", "m", "--data", "d", "--captions", "-1"], "captions must be at least 0"),
    ):
        assert image(*words, "--out", str(out)) == 2
        assert said in capsys.readouterr().err and not out.exists()
    (tmp_path / "file").touch()
    assert image("demo", "--out", str(tmp_path / "file")) == 2
    assert "is a file. Give --out a folder" in capsys.readouterr().err
