"""``python -m train`` and the installed command ``lars-imagenet``: as ``python train/main.py``."""

from train.processes.signals import leave_at_once
from train.processes.stdio import outlive_readers


def main() -> None:
    leave_at_once()
    outlive_readers()
    # its imports take a second
    from train.main import main as run

    run()


if __name__ == "__main__":
    main()
