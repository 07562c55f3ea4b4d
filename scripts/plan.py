"""What the rows of a recipe would take on ImageNet, before anything is rented: a Markdown table, and a plot.

Usage: python scripts/plan.py [--plot FILE.png] [overrides]
       python scripts/plan.py plan.gpus=[8,64,512] plan.dollars_per_hour=2 --plot plan.png
It needs no GPU and no images. `python train/main.py batch=32k data=imagenet plan.show=true` says more of one row.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.reporting import costs  # noqa: E402
from train.errors import UserError, report  # noqa: E402
from train.main import MISTAKES, refuse  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="draw hours against GPUs into this PNG, its figures beside it")
    arguments, overrides = parser.parse_known_args()
    if arguments.plot and arguments.plot.suffix != ".png":
        parser.error(f"--plot {arguments.plot}: give a name that ends in .png")
    try:
        print(costs.markdown(*overrides))
        if arguments.plot:
            plot = costs.plan_plot(*overrides)
            figures = plot.as_csv()
            arguments.plot.with_suffix(".csv").write_text(figures)
            plot.picture(arguments.plot, figures)
    except MISTAKES as error:
        sys.exit(refuse(error))
    except OSError as error:
        sys.exit(report(UserError(f"{error.filename}: {error.strerror}: give another --plot=FILE.png")))


if __name__ == "__main__":
    main()
