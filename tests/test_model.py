"""The networks: their options, and torchvision's by name."""

import pytest
import torch
from torch import nn

from train.resnet import resnet8, resnet50


def test_with_zero_gamma_a_block_begins_as_its_shortcut():
    net = resnet8(4, zero_gamma=True)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(net.block1(x), x) and not torch.equal(resnet8(4).block1(x), x)
    big = resnet50(4, zero_gamma=True)
    x = torch.rand(2, 256, 8, 8)
    assert torch.equal(big.layer1[1](x), x)  # type: ignore[operator, index]
    assert sum(not m.weight.any() for m in big.modules() if isinstance(m, nn.BatchNorm2d)) == 16


def test_the_stride_in_the_1x1_is_he_et_als_network():
    def billions(net: nn.Module) -> float:
        """Multiply-adds of one image of 224 pixels."""
        counted: list[int] = []
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda m, _, out: counted.append(out.numel() * m.weight[0].numel()))
        with torch.device("meta"):
            net.to("meta")(torch.empty(1, 3, 224, 224))
        return sum(counted) / 1e9

    # He et al. 2015, Table 1: 3.8e9; torchvision's documentation of ResNet50_Weights: 4.09 GFLOPS
    assert billions(resnet50(1000, stride_in_1x1=True)) == pytest.approx(3.8, abs=0.06)
    assert billions(resnet50(1000)) == pytest.approx(4.09, abs=0.005)
    a, b = (resnet50(4, stride_in_1x1=v1).state_dict() for v1 in (True, False))
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
