"""Weights & Biases and MLflow: TensorBoard's curves, by images trained on, in a service that keeps runs.

The service's id of a run is kept in the run's folder, so that a resumed run stays one run there.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from train.engine.logger import Logger, Run
from train.output.files import write_whole
from train.output.pictures import grid

PROJECT = "lars-imagenet"  # where runs are filed unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise


class TrackingLogger(Logger):
    """A run that a service knows by an id."""

    def __init__(self, run: Run, service: str) -> None:
        self._run, self._path = run, run.folder / f"{service}.id"

    @property
    def _id(self) -> str:
        """Empty before the service has the run."""
        return self._path.read_text().strip() if self._path.exists() else ""

    @_id.setter
    def _id(self, value: str) -> None:
        write_whole(self._path, f"{value}\n".encode())


class WandbLogger(TrackingLogger):
    """A W&B run whose step is the number of images. Its own variables apply: WANDB_MODE, WANDB_ENTITY and so on."""

    def __init__(self, run: Run) -> None:
        import wandb

        super().__init__(run, "wandb")
        self._wandb = wandb
        # in a terminal without a key it would ask for one, and wait
        wandb.setup(wandb.Settings(login_timeout=30))
        # of an attempt that saved nothing, W&B keeps what it has under its own id
        self._open(run.images, is_known=run.images > 0)
        if self._board.disabled:
            raise ConnectionError("not logged in: give `wandb login`, or WANDB_MODE=offline")

    def _open(self, images: int, is_known: bool) -> None:
        def init(**how: Any) -> Any:
            return self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=self._run.name,
                notes=self._run.about,
                config=self._run.settings,
                dir=self._run.folder,
                # what is printed is not sent
                settings=self._wandb.Settings(console="off", silent=True, init_timeout=30, finish_timeout=60),
                **how,
            )

        if not (self._id and is_known):
            self._id = secrets.token_hex(8)
            self._board = init(id=self._id)
            return
        try:
            self._board = init(resume_from=f"{self._id}?_step={images}")
        except self._wandb.errors.Error:
            # not every server cuts runs; such a one ignores steps that it has had
            self._board = init(id=self._id, resume="allow")

    def scalars(self, images: int, values: dict[str, float]) -> None:
        self._board.log(values, step=images)

    def picture(self, images: int, tag: str, pixels: Tensor, captions: Sequence[str] = ()) -> None:
        self._board.log({tag: self._wandb.Image(grid(pixels, captions))}, step=images)

    def rewind(self, rows: int, images: int) -> None:
        self._board.finish()
        self._open(images, is_known=True)

    def close(self, is_over: bool) -> None:
        self._board.finish(exit_code=0 if is_over else 1)


class MlflowLogger(TrackingLogger):
    """An MLflow run whose steps are numbers of images, at MLFLOW_TRACKING_URI."""

    def __init__(self, run: Run) -> None:
        # a server that does not answer would hold the run for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow

        super().__init__(run, "mlflow")
        self._client, self._metric = mlflow.MlflowClient(), mlflow.entities.Metric
        self._waiting: list[Any] = []
        self._sent = time.time()
        self.rewind(0, run.images)

    def _create(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        created = self._client.create_run(
            number, run_name=self._run.name, tags={"mlflow.note.content": self._run.about}
        )
        for key, value in self._run.settings.items():
            self._client.log_param(created.info.run_id, key, value)
        return created.info.run_id

    def _send(self, metrics: list[Any]) -> None:
        # the service takes a thousand at once
        for some in (metrics[i : i + 1000] for i in range(0, len(metrics), 1000)):
            self._client.log_batch(self._id, metrics=some)

    def scalars(self, images: int, values: dict[str, float]) -> None:
        now = time.time()
        self._waiting += [self._metric(name, value, int(1000 * now), images) for name, value in values.items()]
        # a request each time would hold the steps
        if now - self._sent > 10:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._sent = self._waiting, [], time.time()
        self._send(waiting)

    def picture(self, images: int, tag: str, pixels: Tensor, captions: Sequence[str] = ()) -> None:
        self._client.log_image(self._id, grid(pixels, captions), artifact_file=f"{tag}-{images}.png")

    def rewind(self, rows: int, images: int) -> None:
        """MLflow cannot take back a figure: a run that has later ones is replaced by one without them."""
        self._waiting = [figure for figure in self._waiting if figure.step <= images]
        before = self._client.get_run(self._id) if self._id else None
        names = before.data.metrics if before else ()
        history = [metric for name in names for metric in self._client.get_metric_history(self._id, name)]
        kept = [metric for metric in history if metric.step <= images]
        if before and images and len(kept) == len(history):
            self._client.update_run(before.info.run_id, status="RUNNING")
            return
        self._id = self._create()
        self._send(kept)
        if before:
            self._client.delete_run(before.info.run_id)

    def close(self, is_over: bool) -> None:
        self._flush()
        self._client.set_terminated(self._id, "FINISHED" if is_over else "KILLED")


SERVICES: dict[str, Callable[[Run], Logger]] = {"wandb": WandbLogger, "mlflow": MlflowLogger}
