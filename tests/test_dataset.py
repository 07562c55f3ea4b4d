"""Image sizes that grow over the epochs."""

from train.config.compose import compose


def test_images_grow_in_multiples_and_are_whole_at_the_end():
    # FFCV's rn50_88_epochs.yaml: from 160 to 192 over epochs 65 to 76 of 88
    grow = ["data=imagenet", "data.size=192", "data.progressive.start=160", "data.progressive.epochs=[65,76]"]
    data = compose(*grow).data
    sizes = [data.progressive.size(data.size, epoch) for epoch in range(88)]
    assert sizes == sorted(sizes) and set(sizes[:76]) == {160} and set(sizes[76:]) == {192}
    data = compose("data=imagenet", "data.progressive.start=128").data
    sizes = [data.progressive.size(data.size, epoch) for epoch in range(62)]
    assert sorted({*sizes}) == [128, 160, 192, 224] and sizes[0] == 128 and sizes[60] == 224 > sizes[59]
    data = compose("data=imagenet").data
    assert {data.progressive.size(data.size, epoch) for epoch in range(90)} == {224}
