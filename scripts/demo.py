"""A half-cheetah learns to run from 300 answers to "which of these two clips is better?".

Trains from an oracle's comparisons and, beside it, on the true reward with the same settings; then draws the learning
curves, judges the learned reward on clips it has not seen and records the agent before, during and after. Run it again
after an interruption and it goes on where it was.
"""

import sys
from pathlib import Path

from prefrl.cli import main

RUN = Path("runs/demo")

if __name__ == "__main__":
    if (RUN / "summary.json").is_file():
        print(f"The demo has run already; its results are in {RUN}. Remove that folder to run it again.")
        sys.exit(main(["evaluate", str(RUN)]))
    if (RUN / "config.json").is_file():
        sys.exit(main(["resume", str(RUN)]))
    sys.exit(
        main(["train", "HalfCheetah-v5", "--labels", "300", "--teacher", "oracle", "--baseline", "--out", str(RUN)])
    )
