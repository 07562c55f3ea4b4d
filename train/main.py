"""The entry, ``python train/main.py batch=32k``: from a command line to a run to an exit code."""

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import cast

if __name__ == "__main__":
    # as a script, this file's folder would stand where the packages are looked for
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from train import command_line, config, sweep
from train.errors import Ended, Stopped, UserError, report
from train.signals import StopRequest

# beside the package in a checkout, inside it in a wheel
CONFIGS = next(p for p in (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs") if p.is_dir())

MISTAKES = (UserError, HydraException, OmegaConfBaseException)

# what a disk or a path refuses, and no bug of ours
MENDABLE = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM ENOTDIR EISDIR EEXIST ENOENT ENAMETOOLONG EIO".split()
}

swept: list[sweep.Job] = []  # by this process, with -m


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def job(chosen: DictConfig) -> None:
    """One composed configuration: run it here, or in as many processes as it takes."""
    # as written: an interpolation in one is the configuration's, not Hydra's own
    overrides = cast("list[str]", OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))
    leave_with(_outcome(chosen, overrides))


def _outcome(chosen: DictConfig, overrides: list[str]) -> int:
    try:
        settings = command_line.typed(chosen)
        config.validate(settings)
        settings.name = settings.name or command_line.default_name(settings, overrides)
    except MISTAKES as error:
        return refuse(error)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        # Hydra cannot be told not to write it
        Path(HydraConfig.get().sweep.dir, "multirun.yaml").unlink(missing_ok=True)
        if settings.evaluate is None and not settings.plan.show:
            by_key = (override.partition("=")[::2] for override in overrides)
            folder = Path(settings.runs_dir).expanduser() / settings.name
            swept.append(sweep.Job({key: value.strip("'") for key, value in by_key}, folder))
    try:
        return start(settings, overrides)
    except Ended as ended:
        return report(ended)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        return report(UserError(f"{error.filename or settings.runs_dir}: {error.strerror}: what was saved is intact"))


def composed(*overrides: str) -> config.Config:
    """What a command line with these ``overrides`` would run, for other programs."""
    config.register()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        spelled = command_line.spell(overrides, under_torchrun=False)
        settings = command_line.typed(hydra.compose("config", overrides=spelled))
    config.validate(settings)
    return settings


def start(settings: config.Config, overrides: list[str]) -> int:
    if settings.plan.show:
        from train.planning.foresee import foresee

        # its reader may have seen enough, as head has
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if int(os.environ.get("RANK", 0)) == 0:
            print(foresee(settings))
        return 0
    stop = StopRequest()
    # torch takes seconds to import: only once the configuration holds
    import torch

    from train import app, launch
    from train.world import under_torchrun

    gpus = torch.cuda.device_count()
    if not under_torchrun():
        processes, remark = launch.process_count(settings, gpus)
        if remark:
            print(remark, file=sys.stderr)
        config.make_plan(settings, settings.batch.total, processes)
        if processes > 1:
            assert settings.name is not None
            return launch.launch(processes, overrides, Path(settings.runs_dir).expanduser() / settings.name)
    if settings.precision == "auto":
        settings.precision = app.native_precision(torch.device("cuda" if gpus else "cpu"))
    app.run(settings, command_line.unspell(overrides), stop)
    return 0


def refuse(error: Exception) -> int:
    """Say what is wrong with the configuration, once for all ranks: they compose the same."""
    if int(os.environ.get("RANK", 0)) > 0:
        # rank 0 gets the time to say it before torchrun ends all
        time.sleep(2)
        return UserError.exit_code
    return report(UserError(command_line.explain(error)))


def leave_with(code: int) -> None:
    """End the process when ``code`` is a failure; jobs of a sweep follow one another otherwise."""
    if code:
        sys.exit(code)


def main() -> None:
    """Run the command line; exit code 0 finished, 2 user's mistake, 3 diverged, 75 stopped and saved."""
    # Hydra's own way to hand its errors to the caller instead of printing and exiting with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    config.register()
    try:
        sys.argv[1:] = command_line.spell(sys.argv[1:], "RANK" in os.environ)
        job()
    except MISTAKES as error:
        leave_with(refuse(error))
    except KeyboardInterrupt:
        leave_with(report(Stopped("stopped before training began: start the same command again")))
    finally:
        if len(swept) > 1:
            print(sweep.summary(swept))


if __name__ == "__main__":
    main()
