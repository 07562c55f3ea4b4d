"""Weight norm over gradient norm of every layer of ResNet-50, at initialisation and in the warm-up of ``batch=32k``.

Usage: python scripts/layers.py [--steps N]

The app's own parts on fractals (images of 32 pixels, batches of 4,096): the norms are those that LARS itself divides
by, before each of the first N steps; the warm-up has 25. Files them, with configuration and result, under
``results/fractals/resnet50-layers``.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lars import LARS  # noqa: E402
from scripts.reporting.records import csv_text  # noqa: E402
from train import app, record  # noqa: E402
from train.batchnorm import RunningStatistics  # noqa: E402
from train.config import make_plan  # noqa: E402
from train.data import open_data  # noqa: E402
from train.main import composed  # noqa: E402
from train.optimizer import make_optimizer  # noqa: E402
from train.schedule import schedule_of  # noqa: E402
from train.step import train_step  # noqa: E402
from train.world import World  # noqa: E402

FOLDER = ROOT / "results" / "fractals" / "resnet50-layers"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25)
    steps = parser.parse_args().steps
    if steps < 1:
        parser.error(f"--steps {steps}: at least 1")
    world = World()
    settings = composed("batch=32k", "model=resnet50", f"precision={app.native_precision(world.device)}")
    commit, began = record.commit(), time.time()
    data = open_data(settings.data)
    plan = make_plan(settings, data.train_images, world.size)
    model = app.build_model(settings, data.classes, world)
    optimizer = make_optimizer(model, settings.optimizer)
    assert isinstance(optimizer, LARS)
    lr = schedule_of(settings, plan)
    loader = data.make_loader(plan, settings.seed, world)
    names = {id(p): name for name, p in model.named_parameters()}
    statistics = RunningStatistics(model, world)
    rows = []
    for step in range(steps):
        epoch, first = divmod(step, plan.steps_per_epoch)
        loss = train_step(
            model, optimizer, islice(loader.train(epoch, first), plan.accumulation), plan.accumulation, statistics,
            world, app.arithmetic_of(settings, world), lr=lr(step), smoothing=settings.label_smoothing,
        )  # fmt: skip
        assert loss is not None
        print(f"step {step}: loss {loss.item():.4f}, lr {lr(step):.3g}, {time.time() - began:.0f} s", flush=True)
        weights, gradients = optimizer.weight_norms.tolist(), optimizer.gradient_norms.tolist()
        rows += [
            {"step": step, "layer": names[id(p)], "weight_norm": f"{w:.6g}", "gradient_norm": f"{g:.6g}"}
            for p, w, g in zip(optimizer.adapted_parameters, weights, gradients, strict=True)
        ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "layers.csv").write_text(csv_text(rows))
    (FOLDER / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(settings))))
    result = {
        "steps": steps,
        "seconds": round(time.time() - began, 1),
        "data": data.remark,
        "data_fingerprint": data.fingerprint,
        "versions": record.versions(),
        "hardware": record.hardware(plan.processes),
        "command": f"python scripts/layers.py --steps {steps}",
        "commit": commit,
    }
    (FOLDER / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
