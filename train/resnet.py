"""The small CIFAR ResNets for images of 32 pixels, and torchvision's ResNet-50 with the options of the recipes."""

import torch.nn.functional as F
from torch import Tensor, nn


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; ``stride`` is the first one's."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = nn.Identity()
        if stride != 1:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels_out))  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x), inplace=True)


def cifar_resnet(depth: int, num_classes: int, zero_gamma: bool = False) -> nn.Sequential:
    """The CIFAR ResNet of ``depth`` 6n+2, for float images ``N,3,H,W`` (He et al. 2015, section 4.2).

    Where the stride changes, the shortcut has a projection; theirs has zeros. Convolutions are initialised as in
    torchvision's ResNets (He, by fan-out). With ``zero_gamma`` the last BatchNorm of each block starts with weight 0,
    so that the block starts as its shortcut (Goyal et al. 2017, section 5.1).
    """
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(16))
    net.add_module("relu", nn.ReLU(inplace=True))
    channels_in, blocks = 16, (depth - 2) // 6
    for i in range(3 * blocks):
        channels, stride = 16 * 2 ** (i // blocks), 2 if i and i % blocks == 0 else 1
        net.add_module(f"block{i + 1}", _Block(channels_in, channels, stride))
        channels_in = channels
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("fc", nn.Linear(64, num_classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, _Block) and zero_gamma:
            nn.init.zeros_(module.bn2.weight)
    return net


def resnet8(num_classes: int, zero_gamma: bool = False) -> nn.Sequential:
    """``cifar_resnet`` of depth 8: 81,552 parameters at 64 classes."""
    return cifar_resnet(8, num_classes, zero_gamma)


def resnet50(num_classes: int, zero_gamma: bool = False, stride_in_1x1: bool = False) -> nn.Module:
    """torchvision's ResNet-50, with the stride in the 3x3 convolutions, for float images ``N,3,H,W``.

    With ``stride_in_1x1`` the stride is in the first 1x1 convolution of a block, as published (He et al. 2015); the
    weights have the same names and shapes. ``zero_gamma`` as in ``cifar_resnet``.
    """
    # imported here: it takes a second that small networks need not wait for
    from torchvision.models import resnet50
    from torchvision.models.resnet import Bottleneck

    net = resnet50(num_classes=num_classes, zero_init_residual=zero_gamma)
    for block in net.modules():
        if isinstance(block, Bottleneck) and stride_in_1x1:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return net
