"""Entry point (``python train/main.py batch=32k``): runs what the command line asks for and sets the exit code."""

import errno
import os
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import cast

if __name__ == "__main__":
    # A script's own folder is searched first for imports, where train/ must not be.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from train.processes.signals import leave_at_once
    from train.processes.stdio import outlive_readers

    # first, because the imports below take a second
    leave_at_once()
    outlive_readers()

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from train.config import resolvers
from train.config.compose import default_name, typed
from train.config.groups import CONFIGS
from train.config.help import help_text
from train.config.overrides import parse, spell, unspell
from train.config.refusals import MISTAKES, is_of_command_line, refuse
from train.config.schema import Config
from train.errors import Diverged, PeersLost, RunEnded, Stopped, UserError, print_error
from train.model import check_library
from train.output import sweep
from train.output.files import mark_stopped
from train.plan import accumulation
from train.processes.signals import StopRequest

# errors of a disk or a path, which are the user's to fix; any other OSError is a bug
FIXABLE = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM ENOTDIR EISDIR EEXIST ENOENT ENAMETOOLONG EIO ELOOP "
    "ESTALE EMFILE ENFILE ENOMEM".split()
}

jobs: dict[Path, dict[str, str]] = {}  # of this process, with -m: overrides by run folder
flags = Namespace(cfg=None, package=None, overrides=[])  # of the command line


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def job(composed: DictConfig) -> float | None:
    """Run one composed configuration, in this process or in worker processes; exit unless it succeeds.

    Returns the last top-1 of a finished run, in percent, which a sweeper such as Optuna's may maximise.
    """
    # unresolved, because an interpolation in an override belongs to the configuration, not to Hydra
    overrides = cast("list[str]", OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))
    runs_dir, folder = None, None
    stop = StopRequest()
    try:
        config = typed(composed)
        config.check()
        if flags.cfg == "job":
            check_library(config.model)
            show(composed, flags.package)
            return None
        # no code is run that a file names, which may be someone else's; a sweep writes its colon as \\:
        given = " ".join(overrides).replace("\\", "")
        if own := [name for name in config.logger if ":" in name and name not in given]:
            raise UserError(
                f"logger={own[0]} is code, which is taken from the command line alone: give logger=[{own[0]}]"
            )
        runs_dir = config.runs_dir
        config = replace(config, name=config.name or default_name(config, overrides))
        if is_sweep():
            check_sweep(config)
            note_job(config, overrides)
        folder = config.folder
        code = start(config, overrides, stop)
        if is_sweep():
            # a signal that came too late for this job is for the sweep
            stop.listen()
    except PeersLost as lost:
        # threads of the process group still wait for the others, and Python's own exit would abort on them
        code = print_error(lost)
        sys.stdout.flush()
        os._exit(code)
    except MISTAKES as error:
        # each process prints an error of its run; one of the configuration, which all share, is printed by rank 0
        code = print_error(error) if runs_dir is not None and isinstance(error, UserError) else refuse(error)
    except RunEnded as ended:
        code = print_error(ended)
        if isinstance(ended, Stopped) and folder and int(os.environ.get("RANK") or 0) == 0:
            mark_stopped(folder, ended)
    except OSError as error:
        if error.errno not in FIXABLE:
            raise
        where = error.filename or f"{runs_dir} or the cache"
        code = print_error(UserError(f"{where}: {error.strerror}: what was saved is intact"))
    if code == Diverged.exit_code and is_sweep() and not is_basic_sweep():
        # to a search a trial that diverged is a failed one, of which its max_failure_rate allows some
        failed = Diverged(0, "a trial diverged")
        failed.is_said_elsewhere = True
        raise failed
    if code:
        # on success it returns, so that a sweep continues with its next job
        sys.exit(code)
    scores = sweep.scores(config.folder)
    return scores[0] if scores and config.evaluate is None else None


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def is_basic_sweep() -> bool:
    """Whether every job is run as given, and none is chosen by the results of others."""
    return "BasicSweeper" in HydraConfig.get().sweeper._target_


def show(composed: DictConfig, package: str | None) -> None:
    """Print a checked configuration, or the part of it that ``package`` names, without interpolations."""
    OmegaConf.resolve(composed)
    part = OmegaConf.select(composed, package) if package else composed
    if part is None and package:
        raise UserError(f"--package {package}: there is nothing of that name")
    print(OmegaConf.to_yaml(part) if OmegaConf.is_config(part) else part, end="")


def check_sweep(config: Config) -> None:
    """Raise UserError where this job of a sweep would be of no use to it, or take another job's folder."""
    if config.max_steps and not is_basic_sweep():
        raise UserError("max_steps= ends a trial without a result, from which a sweeper learns nothing: leave it out")
    parsed = OverridesParser.create().parse_overrides(flags.overrides)
    varied = [given.key_or_group for given in parsed if given.is_sweep_override()]
    is_named = any(g.key_or_group == "name" and "$" not in str(g.input_line) and g.value() is not None for g in parsed)
    if is_named and "name" not in varied and (varied or not is_basic_sweep()) and config.evaluate is None:
        raise UserError(f"name={config.name} is one folder for all jobs of this sweep: leave out name=")


def note_job(config: Config, overrides: list[str]) -> None:
    """Note a job of a sweep for the table at its end."""
    # Hydra cannot be told not to write it
    Path(HydraConfig.get().sweep.dir, "multirun.yaml").unlink(missing_ok=True)
    # a search may try the same values again, which is the same run
    if config.evaluate is None:
        values = dict(override.partition("=")[::2] for override in overrides)
        jobs.setdefault(config.folder, {key: value.strip("'") for key, value in values.items()})


def start(config: Config, overrides: list[str], stop: StopRequest) -> int:
    """Train or evaluate, here or in processes of their own; the exit code."""
    # torch takes seconds to import, so only once the configuration is checked
    import torch

    from train import app
    from train.engine.precision import native_precision
    from train.processes import launch
    from train.processes.limits import raise_open_files
    from train.processes.world import under_torchrun

    raise_open_files()
    if not under_torchrun():
        processes, remark = launch.process_count(config.nproc, config.batch, torch.cuda.device_count())
        if remark:
            print(remark, file=sys.stderr)
        # raises when the batch does not divide
        accumulation(config.batch, processes)
        if processes > 1:
            return launch.launch(processes, overrides, config.folder, stop)
    with app.process_group(config) as world:
        if config.precision == "auto":
            config = replace(config, precision=native_precision(world.device))
        if config.evaluate:
            app.evaluate_file(config, world)
        else:
            app.train(config, world, stop, unspell(overrides))
    return 0


def main() -> None:
    """Run the command line; exit code 0 finished, 2 user's mistake, 3 diverged, 75 stopped and saved."""
    if sys.platform == "win32":
        sys.exit(print_error(UserError("Windows is not supported: run it on Linux, such as WSL 2 or a container")))
    # makes Hydra raise its errors instead of printing them and exiting with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    global flags
    resolvers.register()
    try:
        flags = parse(sys.argv[1:], "RANK" in os.environ)
        if flags.help:
            print(help_text())
            return
        # Hydra would show a configuration that nobody has checked
        hydras = Namespace(**{**vars(flags), "cfg": None, "package": None, "resolve": False})
        sys.argv[1:] = spell(hydras if flags.cfg == "job" else flags)
        job()
    except MISTAKES as error:
        sys.exit(refuse(error))
    except RunEnded as ended:
        sys.exit(print_error(ended))
    except Exception as error:
        if not is_of_command_line(error, job):
            raise
        sys.exit(refuse(error))
    finally:
        if len(jobs) > 1:
            print(sweep.table(jobs))


if __name__ == "__main__":
    main()
