"""Does it cost anything to let people see the agent change early? Runs that wait for 20 answers, or for a quarter.

    python scripts/experiments/wait_for_people.py Pendulum-v1 --labels 150 --waits 20 38 --seeds 0 1 2

A program answers by the true return of the clips, as slowly as can be: one question whenever the training rests and can
go no further without an answer. So the agent is always as far ahead of the answers as it may be, on any machine. One
line a run: its true return, and how many steps the agent had made when half of the answers were in.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import tyro

from prefrl.control import TrainSettings, people
from prefrl.control.folder import ControlFolder
from prefrl.control.loop import Trainer
from prefrl.control.run import summarise
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore


def main(
    env: tyro.conf.Positional[str],
    labels: int = 150,
    waits: tuple[int, ...] = (20, 38),
    seeds: tuple[int, ...] = (0, 1, 2),
    out: Path = Path("runs/wait"),
) -> None:
    """Teach each run, and print what came of it."""
    for seed in seeds:
        for wait in waits:
            settings = TrainSettings(env_id=env, annotator="human", labels=labels, wait=wait, seed=seed)
            print(json.dumps({"wait": wait, "seed": seed, **teach(settings, out)}), flush=True)


def teach(settings: TrainSettings, out: Path) -> dict[str, float]:
    """Run one training, answer its questions, and return its figures."""
    path = out / f"{settings.env_id.replace('/', '-')}-{settings.labels}-{settings.wait}-{settings.seed}"
    folder = ControlFolder.create(path, settings.resolve(), baseline=False)
    trainer = Trainer(folder)
    steps: dict[str, float] = {}
    with PreferenceStore(folder.record) as store:

        def answer(_seconds: float) -> None:
            for claim in store.claim("person", 1, repeat_share=0):
                first, second = (part.true_rewards.sum() for part in store.query(claim.query.id).segments)
                said = 0.5 if first == second else float(first > second)
                answers = [Comparison(query_id=claim.query.id, preference=said, annotator="person", claim=claim.token)]
                store.add_answers(answers)
            if store.num_answers() == settings.labels // 2:
                steps.setdefault("steps at half of the answers", trainer.agent.num_env_steps)

        vars(people)["time"] = SimpleNamespace(sleep=answer, monotonic=time.monotonic)  # it sleeps where it rests
        trainer.run()
    trainer.close()
    return {"true return": summarise(folder, quiet=True)["true_return_mean"], **steps}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(main, description=__doc__)
