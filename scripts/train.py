"""What `prefrl train` does, as a script to copy from: `python scripts/train.py Pendulum-v1 --labels 200`."""

import tyro

from prefrl.training import TrainSettings, evaluate_run, report, train


def main(settings: TrainSettings) -> None:
    run = train(settings)  # collect, ask, fit, improve; everything lands in the run folder
    result = evaluate_run(run, "last")
    card = report(run)
    print(f"{run.path}: true return {result.mean:.1f} over {len(result.true_returns)} episodes")
    print(card.to_text())


if __name__ == "__main__":
    main(tyro.cli(TrainSettings))
