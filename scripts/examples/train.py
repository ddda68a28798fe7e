"""What `prefrl train` does, as a script to copy from: `python scripts/examples/train.py Pendulum-v1 --labels 200`.

Hyper-parameters of the agent and options of the environment are fields of the settings too, `hyperparameters` and
`env_options`: set them where a script of your own makes its `TrainSettings`.
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from prefrl.control import Interrupted, TrainSettings, evaluate_run, train
from prefrl.errors import UserError
from prefrl.studies import report_run


def main(
    settings: Annotated[TrainSettings, tyro.conf.arg(name="")], out: Path | None = None, baseline: bool = False
) -> None:
    run = train(settings, out, baseline=baseline)  # collect, ask, fit, improve; everything lands in the run folder
    result = evaluate_run(run, "last")
    card = report_run(run)
    print(f"{run.path}: true return {result.mean:.1f} over {len(result.true_returns)} episodes")
    print(card.to_text())


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except (UserError, Interrupted) as error:
        sys.exit(str(error))
