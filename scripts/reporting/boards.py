"""TensorBoard event files of committed records, the same bytes from the same records."""

import io
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from scripts.records import ROOT, Record, layers, on_fractals
from train.config.compose import compose
from train.engine.logger import TAGS
from train.keys import flatten, free_on_resume
from train.output.board import opening
from train.output.run_folder import RETIRED

FOLDER = ROOT / "results" / "tb"


def boards() -> dict[Path, bytes]:
    """The event file of seed 0 of every row of (a)."""
    free = free_on_resume(compose())
    runs = [r for r in on_fractals("rows").values() if r.config.seed == 0]
    return {FOLDER / run.folder.name / "events.out.tfevents.0": _file(run, free) for run in runs}


def _file(record: Record, free: set[str]) -> bytes:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in _events(record, free):
        writer.write(event.SerializeToString(deterministic=True))
    return file.getvalue()


def _events(record: Record, free: set[str]) -> Iterator[Event]:
    """A record has no dates: wall time is the seconds of training, from 1970 on."""
    yield Event(file_version="brain.Event:2")
    values = flatten(OmegaConf.to_container(record.config))  # type: ignore[arg-type]
    settings = {k: v for k, v in values.items() if k not in free and not k.startswith(RETIRED)}
    about = "rebuilt by `scripts/report.py` from `" + record.folder.relative_to(ROOT).as_posix() + "`"
    for summary in opening(settings, about):
        yield Event(summary=summary)
    seconds = {}
    for row in record.rows:
        images = int(row["images"])
        seconds[images] = row["seconds"]
        for tag, key in {**TAGS, "train/lr": "lr"}.items():
            yield _scalar(tag, row[key], images, row["seconds"])
    for layer in layers(record.folder):
        images = int(layer["images"])
        yield _scalar(f"trust_ratio/{layer['layer']}", float(layer["trust_ratio"]), images, seconds[images])


def _scalar(tag: str, value: float, images: int, seconds: float) -> Event:
    return Event(step=images, wall_time=seconds, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
