"""What every picture keeps to: one colour for a batch, every seed drawn, names that can be read, the same bytes."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from scripts import matrix
from scripts.reporting.drawings import draw_curves, draw_ends
from scripts.reporting.experiments.accuracy import DIVISOR
from scripts.reporting.plot import BATCHES, COLOURS, LINES, Plot, colour_of, label_ends
from train.config.groups import choices


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def ends(*runs: tuple[str, str, int, float]) -> list[dict[str, str]]:
    keys = ("batch", "optimizer", "seed", "error")
    return [dict(zip(keys, map(str, run), strict=True)) for run in runs]


def test_every_batch_of_the_presets_and_of_the_experiments_has_a_colour_of_its_own():
    assert set(choices("batch")) <= set(COLOURS) and len(set(COLOURS.values())) == len(COLOURS)
    assert {DIVISOR * images for images in matrix.EPOCHS} <= set(BATCHES.values())
    assert all(colour_of(images) == COLOURS[name] for name, images in BATCHES.items())


def test_panels_of_batches_stand_in_the_order_of_their_size():
    rows = ends(("256", "sgd", 0, 9), ("32k", "sgd", 0, 9), ("8k", "lars", 0, 9), ("32k", "lars", 0, 9))
    plot = Plot("name", lambda: [], lambda axes, rows: None, by="batch")
    assert [[row["batch"] for row in part] for part in plot.parts(rows)] == [["256"], ["8k"], ["32k", "32k"]]


def test_every_seed_is_drawn_and_no_two_hide_one_another(axes):
    runs = [("8k", optimizer, seed, 20.0) for optimizer in ("lars", "sgd") for seed in range(5)]
    draw_ends(axes, ends(*runs), "batch", {"8k": "8k"})
    places = [tuple(point) for drawn in axes.collections for point in drawn.get_offsets().tolist()]
    assert len(places) == len(set(places)) == len(runs)
    assert all((x < 0) == (k < 5) for k, (x, _) in enumerate(places))


@pytest.mark.parametrize(("seeds", "lines"), [(3, 3), (5, 6)])
def test_a_line_for_each_seed_and_one_for_the_median_of_five(axes, seeds: int, lines: int):
    rows = [{**row, "epoch": str(epoch)} for seed in range(seeds) for epoch in (1, 2)
            for row in ends(("8k", "sgd", seed, 50 + seed - epoch))]  # fmt: skip
    draw_curves(axes, rows, "error")
    assert len(axes.lines) == lines
    assert {(line.get_color(), line.get_linestyle()) for line in axes.lines} == {(COLOURS["8k"], LINES["sgd"])}
    if seeds == 5:
        assert list(axes.lines[-1].get_ydata()) == [51, 50]


def test_names_at_ends_that_coincide_are_written_apart_and_in_order(axes):
    axes.set_ylim(0, 1)
    label_ends(axes, [(0, 0.51, "upper", "black"), (0, 0.5, "lower", "black"), (0, 0.9, "far", "black")], apart=14)
    heights = {}
    for text in axes.texts:
        at = axes.transData.transform((0, text.xy[1]))[1] * 72 / axes.figure.dpi
        heights[text.get_text()] = at + text.xyann[1]
    assert heights["upper"] - heights["lower"] == pytest.approx(14)
    assert next(text for text in axes.texts if text.get_text() == "far").xyann[1] == 0


def test_a_picture_drawn_twice_has_the_same_bytes(tmp_path: Path):
    plot = Plot("name", lambda: [{"batch": "8k", "y": 1}, {"batch": "256", "y": 2}],
                lambda axes, rows: axes.set_title(rows[0]["batch"]), by="batch")  # fmt: skip
    for name in ("one.png", "two.png"):
        plot.picture(tmp_path / name, plot.as_csv())
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
