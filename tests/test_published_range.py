"""Remarks on a top-1 outside the published range."""

from tests.helpers import ROOT
from train.output.published_range import PublishedRange


def test_a_batch_that_torchlars_did_not_publish_has_no_expected_range():
    assert PublishedRange("4k").remark(3, 5.0) is None and "normal at batch=32k" in str(
        PublishedRange("32k").remark(3, 5.0)
    )


def test_published_curves_pass_and_a_run_far_below_them_is_told_once():
    import csv

    with open(ROOT / "results/published/torchlars-figure.csv", newline="") as file:
        curves = [(row["batch"], int(row["epoch"]), float(row["top1"])) for row in csv.DictReader(file)]
    ranges = {
        batch: PublishedRange({"8192": "8k", "16384": "16k", "32768": "32k"}.get(batch, batch))
        for batch, _, _ in curves
    }
    said = [line for batch, epoch, top1 in curves if (line := ranges[batch].remark(epoch, top1))]
    assert said and all("is normal at batch=16k" in line or "is normal at batch=32k" in line for line in said)
    low = PublishedRange("32k")
    lines = [low.remark(epoch, 20.0) for epoch in (40, 41, 42)]
    assert "20.0 % after epoch 40 is under the published range of batch=32k" in lines[0] and lines[1:] == [None, None]
