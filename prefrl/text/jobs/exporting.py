"""A run of `prefrl text` for another program: its model, data and settings, and a script or command that runs there.

What has no counterpart there is said, and stands in the folder's README.md. The scripts are tested with trl 1.16; the
commands are those of OpenRLHF 0.10, by its documentation.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefrl.errors import UserError
from prefrl.files import write_atomically, write_json
from prefrl.text.data import sources
from prefrl.text.data.examples import Encoder, texts_of
from prefrl.text.jobs.direct import DPOJob
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import settings_of
from prefrl.text.jobs.jobs import job_of
from prefrl.text.jobs.parts import fitting, prompt_key, say, split_by
from prefrl.text.jobs.policies import PPOJob
from prefrl.text.jobs.supervised import RewardJob
from prefrl.text.learn.server_reward import KEY_VARIABLE
from prefrl.text.model.models import context_length, load_model, save_model

Program = Literal["trl", "openrlhf"]
URL_VARIABLE = "PREFRL_REWARD_URL"
VERBS = {
    "trl": ("dpo", "ipo", "reward", "grpo"),
    "openrlhf": ("dpo", "ipo", "reward", "ppo", "rloo", "grpo", "reinforce"),
}
ADVANTAGES = {"ppo": "gae", "rloo": "rloo", "grpo": "group_norm", "reinforce": "reinforce"}
"""What OpenRLHF calls the estimators."""


def export_run(run: Path, program: Program, out: Path, *, trust: bool = False) -> list[str]:
    """Write a folder from which another program makes the training of a run.

    Args:
        run: folder of the run, finished or not.
        program: which.
        out: the folder; it must not exist.
        trust: use what the run names, though another user made it.

    Returns:
        What has no counterpart there.

    Raises:
        UserError: there is something at `out`, or the program has no such training.
    """
    folder = TextFolder.open(run, trust=trust)
    verb = str(folder.config["command"])
    if verb not in VERBS[program]:
        raise UserError(
            f"The run in {run} is one of prefrl text {verb}; what can be exported to {program} are "
            f"{', '.join(VERBS[program])}."
        )
    if out.exists():
        raise UserError(f"{out} exists already. Choose another --to.")
    job = folder.read_settings(job_of(folder), settings_of(folder))
    model, tokens = load_model(job.model)
    reading, context = job.place.reading(tokens), context_length(model)
    remarks: list[str] = []
    if isinstance(job, PPOJob):
        encoder = Encoder(tokens, context, job.training.sampling.max_tokens)
        read = sources.read_prompts(job.data, seed=job.place.seed, count=job.prompts, reading=reading)
        say(job.data, reading)
        learned = [{"prompt": prompt, "label": ""} for prompt in fitting(encoder, read)]
        files = {"prompts.jsonl": learned}
        remarks += _policy_remarks(job, program)
    else:
        rows, held_out = _pairs(job, job.place.encoder(tokens, context), reading)
        files = {"train.jsonl": rows, "held_out.jsonl": held_out}
    if job.lora.rank:
        remarks.append(f"LoRA of rank {job.lora.rank}: all weights are trained there, unless you say so.")
    for name, written in files.items():
        if written:
            sources.write_rows(out / name, written)
    save_model(out / "model", model, tokens)
    if program == "trl":
        _write_trl(job, out, context, remarks)
    else:
        _write_openrlhf(job, out, context, remarks)
    _write_readme(out, program, run, job, remarks)
    return remarks


def _pairs(
    job: DPOJob | RewardJob, encoder: Encoder, reading: Any
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the pairs to learn from and those held out, as the run has them."""
    data = sources.read_rankings(job.data, reading)
    say(job.data, reading)
    rows = encoder.rows([(item.prompt, texts_of(item)) for item in data])
    data = [item for item, row in zip(data, rows, strict=True) if row is not None]
    data = [item for item in data if len(set(item.ranks)) > 1]  # ties are no pairs
    if not data:
        raise UserError(f"No two responses in {job.data} are ranked apart: there are no pairs to export.")
    learned, held_out = split_by(data, [prompt_key(item.prompt) for item in data], job.place.seed)

    def pairs(items: Sequence[Any]) -> list[dict[str, str]]:
        return [
            {"prompt": item.prompt, "chosen": item.responses[a], "rejected": item.responses[b]}
            for item in items
            for a in range(len(item.ranks))
            for b in range(len(item.ranks))
            if item.ranks[a] < item.ranks[b]
        ]

    return pairs(learned), pairs(held_out)


def _policy_remarks(job: PPOJob, program: Program) -> list[str]:
    """Return what of a policy gradient is only here."""
    training, found = job.training, []
    if training.missing_end != "ignore":
        found.append("What is taken off the score of a response without an end (training.missing-end).")
    if training.ptx_coefficient:
        found.append("The pretraining text that is mixed in (PPO-ptx).")
    if training.adaptive_kl_nats is not None:
        found.append("The KL penalty that adapts: its first weight stays.")
    if program == "trl" and getattr(training, "kl", "loss") == "reward":
        found.append("The KL penalty in the reward: there it is in the loss.")
    return found


# ------------------------------------------------------------------------------------------------------------------ trl


def _write_trl(job: Any, out: Path, context: int, remarks: list[str]) -> None:
    training, optimiser = job.training, job.training.optimiser
    settings: dict[str, Any] = {
        "learning_rate": optimiser.learning_rate, "warmup_steps": optimiser.warmup_share,
        "lr_scheduler_type": optimiser.decay, "max_grad_norm": optimiser.max_grad_norm,
        "weight_decay": optimiser.weight_decay, "adam_epsilon": optimiser.adam_eps, "seed": job.place.seed,
    }  # fmt: skip
    if isinstance(job, PPOJob):
        name, script = "GRPO", GRPO_SCRIPT
        settings |= {
            "per_device_train_batch_size": training.minibatch_size,
            "steps_per_generation": training.batch_size // training.minibatch_size,
            "num_generations": training.samples_per_prompt, "max_steps": _updates(training),
            "num_iterations": training.epochs, "beta": training.beta, "epsilon": training.clip,
            "epsilon_high": training.clip_high, "max_completion_length": training.sampling.max_tokens,
            "temperature": training.sampling.temperature, "scale_rewards": training.scale,
            "importance_sampling_level": "sequence" if training.ratio == "response" else "token",
            "loss_type": {"response": "grpo", "constant": "dr_grpo"}.get(training.lengths or "token", "dapo"),
        }  # fmt: skip
    elif isinstance(job, RewardJob):
        name, script = "Reward", REWARD_SCRIPT
        settings |= {"per_device_train_batch_size": training.batch_size, "num_train_epochs": training.epochs}
        settings["max_length"] = context
        if training.plackett_luce:
            remarks.append("The likelihood of whole orders: there it is that of pairs.")
        if training.bootstrap:
            remarks.append("The bootstrap: every pair is learned from there.")
    else:
        name, script = "DPO", DPO_SCRIPT
        settings |= {
            "per_device_train_batch_size": training.batch_size, "num_train_epochs": training.epochs,
            "max_length": context, "beta": training.beta, "label_smoothing": training.label_smoothing,
            "loss_type": ["ipo"] if training.method == "ipo" else ["sigmoid"],
        }  # fmt: skip
        if training.rankings:
            remarks.append("DPO on whole rankings: there it is on their pairs.")
        if training.method == "ipo" and not training.mean_log_probs:
            remarks.append("IPO on sums of log-probabilities: there it is on means per token.")
    write_json(out / "settings.json", settings)
    write_atomically(out / "train.py", script.replace("NAME", name))


def _updates(training: Any) -> int:
    """Return how many gradient steps there are."""
    batches = max(1, training.episodes // training.batch_size)
    return int(batches * training.epochs * (training.batch_size // training.minibatch_size))


HEAD = '''"""NAME by trl 1.16: python train.py. The result is written into result/."""

import json
from pathlib import Path

import torch
from datasets import Dataset
from transformers import MODEL, AutoTokenizer
from trl import NAMEConfig, NAMETrainer

HERE = Path(__file__).resolve().parent


def rows(name):
    lines = (HERE / name).read_text(encoding="utf-8").split("\\n")
    return Dataset.from_list([json.loads(line) for line in lines if line])


tokenizer = AutoTokenizer.from_pretrained(HERE / "model")
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
on_gpu = torch.cuda.is_available()
settings = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
config = NAMEConfig(
    output_dir=str(HERE / "checkpoints"), report_to="none", save_strategy="no", logging_steps=1, use_cpu=not on_gpu,
    bf16=on_gpu and torch.cuda.is_bf16_supported(), **settings,
)
'''
TAIL = """trainer.train()
trainer.save_model(str(HERE / "result"))
tokenizer.save_pretrained(HERE / "result")
"""
DPO_SCRIPT = (
    HEAD.replace("MODEL", "AutoModelForCausalLM")
    + """model = AutoModelForCausalLM.from_pretrained(HERE / "model")
trainer = NAMETrainer(model=model, args=config, train_dataset=rows("train.jsonl"), processing_class=tokenizer)
"""
    + TAIL
)
REWARD_SCRIPT = (
    HEAD.replace("MODEL", "AutoModelForSequenceClassification")
    + """model = AutoModelForSequenceClassification.from_pretrained(HERE / "model", num_labels=1)
model.config.pad_token_id = tokenizer.pad_token_id
trainer = NAMETrainer(model=model, args=config, train_dataset=rows("train.jsonl"), processing_class=tokenizer)
"""
    + TAIL
)
GRPO_SCRIPT = (
    HEAD.replace("MODEL", "AutoModelForCausalLM").replace(
        "import json\n", "import json\nimport os\nimport urllib.request\n"
    )
    + f'''

def reward(prompts, completions, **kwargs):
    """Ask the server of: prefrl text serve REWARD."""
    body = json.dumps({{"prompts": prompts, "responses": completions}}).encode()
    headers = {{"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["{KEY_VARIABLE}"]}}
    request = urllib.request.Request(os.environ["{URL_VARIABLE}"], body, headers)
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)["rewards"]


model = AutoModelForCausalLM.from_pretrained(HERE / "model")
trainer = NAMETrainer(
    model=model, reward_funcs=reward, args=config, train_dataset=rows("prompts.jsonl"), processing_class=tokenizer
)
'''
    + TAIL
)


# ------------------------------------------------------------------------------------------------------------- OpenRLHF


def _write_openrlhf(job: Any, out: Path, context: int, remarks: list[str]) -> None:
    training, optimiser = job.training, job.training.optimiser
    schedule = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}[optimiser.decay]
    options: dict[str, Any] = {"--data.max_len": context, "--train.seed": job.place.seed, "--ckpt.output_dir": "result"}
    if isinstance(job, PPOJob):
        samples = getattr(training, "samples_per_prompt", 1)
        program = ["python", "-m", "openrlhf.cli.train_ppo_ray"]
        options |= {
            "--actor.model_name_or_path": "model", "--data.prompt_dataset": "prompts.jsonl",
            "--data.input_key": "prompt",
            "--data.label_key": "label", "--data.input_template": "{}", "--reward.remote_url": f"${URL_VARIABLE}",
            "--algo.advantage.estimator": ADVANTAGES[job.verb], "--algo.kl.init_coef": training.beta,
            "--rollout.batch_size": max(1, training.batch_size // samples), "--rollout.n_samples_per_prompt": samples,
            "--rollout.temperature": training.sampling.temperature,
            "--rollout.max_new_tokens": training.sampling.max_tokens, "--train.batch_size": training.minibatch_size,
            "--train.micro_batch_size": training.micro_batch_size or max(1, training.minibatch_size // 4),
            "--train.max_epochs": training.epochs, "--actor.adam.lr": optimiser.learning_rate,
            "--actor.max_norm": optimiser.max_grad_norm, "--actor.eps_clip": training.clip,
            "--actor.lr_scheduler": schedule, "--actor.lr_warmup_ratio": optimiser.warmup_share,
        }  # fmt: skip
        if job.verb == "grpo" and training.kl == "loss":
            options |= {"--algo.kl.use_loss": None, "--algo.kl.estimator": "k3"}
        if job.verb == "ppo":
            options |= {"--critic.model_name_or_path": "model", "--critic.adam.lr": optimiser.learning_rate}
        remarks.append("How many episodes there are: OpenRLHF counts passes over the prompts (--train.num_episodes).")
    else:
        is_reward = isinstance(job, RewardJob)
        program = ["deepspeed", "--module", f"openrlhf.cli.{'train_rm' if is_reward else 'train_dpo'}"]
        options |= {
            "--model.model_name_or_path": "model", "--data.dataset": "train.jsonl", "--data.prompt_key": "prompt",
            "--data.chosen_key": "chosen", "--data.rejected_key": "rejected", "--data.input_template": "{}",
            "--train.batch_size": training.batch_size,
            "--train.micro_batch_size": training.micro_batch_size or training.batch_size,
            "--train.max_epochs": training.epochs, "--adam.lr": optimiser.learning_rate,
            "--lr_scheduler": schedule, "--lr_warmup_ratio": optimiser.warmup_share,
            "--max_norm": optimiser.max_grad_norm,
        }  # fmt: skip
        if not is_reward:
            options |= {"--model.beta": training.beta, "--model.label_smoothing": training.label_smoothing}
            if training.method == "ipo":
                options["--model.ipo_enable"] = None
            if training.rankings:
                remarks.append("DPO on whole rankings: there it is on their pairs.")
        elif training.plackett_luce:
            remarks.append("The likelihood of whole orders: there it is that of pairs.")
    lines = [shlex.join(program)]
    for name, value in options.items():
        word = "" if value is None else f' "{value}"' if str(value).startswith("$") else f" {shlex.quote(str(value))}"
        lines.append(f"  {name}{word}")
    text = '#!/usr/bin/env bash\nset -e\ncd "$(dirname "$0")"\n' + " \\\n".join(lines) + ' "$@"\n'
    write_atomically(out / "train.sh", text)
    (out / "train.sh").chmod(0o755)


def _write_readme(out: Path, program: Program, run: Path, job: Any, remarks: Sequence[str]) -> None:
    command = "python train.py" if program == "trl" else "./train.sh"
    lines = [f"# A run of prefrl text {job.verb}, for {program}", "", f"    {command}", ""]
    if isinstance(job, PPOJob):
        key = f"{URL_VARIABLE}=http://127.0.0.1:5000/get_reward{'' if program == 'trl' else '?token=TOKEN'}"
        words = " ".join(shlex.quote(name) for name in job.reward)
        lines += [
            "The reward is asked over HTTP. Start it first, and take the token that it prints:", "",
            f"    prefrl text serve {words}", f"    export {KEY_VARIABLE}=TOKEN {key}", "",
        ]  # fmt: skip
    if remarks:
        lines += ["What prefrl does and this does not:", "", *(f"- {remark}" for remark in remarks), ""]
    write_atomically(out / "README.md", "\n".join(lines))
