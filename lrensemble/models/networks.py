"""The networks themselves, of ordinary layers only: convolution, linear, batch norm, ReLU, pooling, dropout, addition.

Every builder is called as ``builder(input_shape, n_classes, **options)`` and initialises from torch's global generator.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from lrensemble.errors import InputError

__all__ = ["Residual", "cnn3", "lenet", "lenet5", "mlp", "resnet", "wideresnet"]


def mlp(input_shape: tuple[int, ...], n_classes: int, *, hidden: int, depth: int, dropout: float) -> nn.Module:
    """Multilayer perceptron: `depth` times Linear, ReLU, Dropout of width `hidden`, then Linear; flattens images."""
    _check_positive(hidden=hidden)
    _check_share(dropout=dropout)
    if depth < 0:
        raise InputError(f"expected depth ≥ 0, got {depth}")
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for _ in range(depth):
        layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


def lenet(input_shape: tuple[int, int, int], n_classes: int) -> nn.Module:
    """LeNet as in Caffe's MNIST example: conv 20, pool, conv 50, pool, fc 500, fc (after LeCun et al. 1998).

    Kernels are 5×5, without padding, as there; images with a side below 16 (the 8×8 digits) are padded by 2 to keep
    their size, since nothing would be left of them otherwise.
    """
    channels, height, width = input_shape
    padding = 0 if min(height, width) >= 16 else 2

    def after(side: int) -> int:  # of one convolution and its pooling
        return (side + 2 * padding - 4) // 2

    _check_side(input_shape, 4)
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5, padding=padding),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, padding=padding),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * after(after(height)) * after(after(width)), 500),
        nn.ReLU(inplace=True),
        nn.Linear(500, n_classes),
    )


def lenet5(input_shape: tuple[int, int, int], n_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998, table I): conv 6, pool, conv 16, pool, fc 120, fc 84, fc; with ReLU and max pooling.

    Kernels are 5×5; the first convolution is padded by 2, as 28×28 digits were to 32×32. Images with a side below 16
    are padded before the second one too, since nothing would be left of them otherwise.
    """
    channels, height, width = input_shape
    padding = 0 if min(height, width) >= 16 else 2

    def after(side: int) -> int:
        return (side // 2 + 2 * padding - 4) // 2

    _check_side(input_shape, 4)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=padding),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * after(height) * after(width), 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, n_classes),
    )


def cnn3(input_shape: tuple[int, int, int], n_classes: int) -> nn.Module:
    """Three blocks of conv 5×5 (padding 2), ReLU, pool 2, of 32, 32 and 64 channels, then fc.

    Caffe's CIFAR-10 "full" network without its local response normalisation.
    """
    _check_side(input_shape, 8)
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for width in (32, 32, 64):
        layers += [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * (input_shape[1] // 8) * (input_shape[2] // 8), n_classes)
    )


def resnet(input_shape: tuple[int, int, int], n_classes: int, *, depth: int, width: int) -> nn.Module:
    """ResNet for small images (He et al. 2016, arXiv 1512.03385, §4.2): depth = 6n + 2, widths w, 2w, 4w.

    Shortcuts that change the shape are 1×1 convolutions with batch norm (option B of the paper), where the paper's own
    CIFAR networks pad with zeros (option A); in ResNet-20 these are 1 % of the parameters.
    """
    blocks, remainder = divmod(depth - 2, 6)
    if remainder or blocks < 1:
        raise InputError(f"expected a ResNet depth of 6n + 2 (8, 14, 20, 26, 32, …), got {depth}")
    _check_positive(width=width)
    _check_side(input_shape, 4)
    layers: list[nn.Module] = [_conv3(input_shape[0], width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    channels = width
    for stage in range(3):
        for block in range(blocks):
            out = width * 2**stage
            layers.append(_basic_block(channels, out, stride=2 if stage > 0 and block == 0 else 1))
            channels = out
    return _initialised(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)))


def wideresnet(
    input_shape: tuple[int, int, int], n_classes: int, *, depth: int, width: int, dropout: float
) -> nn.Module:
    """Wide ResNet (Zagoruyko & Komodakis 2016, arXiv 1605.07146): pre-activation, depth 6n + 4, widths 16k 32k 64k."""
    blocks, remainder = divmod(depth - 4, 6)
    if remainder or blocks < 1:
        raise InputError(f"expected a Wide ResNet depth of 6n + 4 (10, 16, 22, 28, 34, 40, …), got {depth}")
    _check_positive(width=width)
    _check_share(dropout=dropout)
    _check_side(input_shape, 4)
    layers: list[nn.Module] = [_conv3(input_shape[0], 16)]
    channels = 16
    for stage in range(3):
        for block in range(blocks):
            out = 16 * width * 2**stage
            layers.append(_wide_block(channels, out, 2 if stage > 0 and block == 0 else 1, dropout))
            channels = out
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _initialised(nn.Sequential(*layers, nn.Linear(channels, n_classes)))


class Residual(nn.Module):
    """``after(body(z) + shortcut(z))`` with ``z = before(x)``: the one place where two paths meet.

    Attributes
    ----------
    before
        Seen by both paths.
    body, shortcut
        The two paths.
    after
        Applied to the sum.
    """

    def __init__(self, *, before: nn.Module, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.body, self.shortcut, self.after = before, body, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """Add the two paths."""
        z = self.before(x)
        return self.after(self.body(z) + self.shortcut(z))


def _basic_block(channels: int, out: int, stride: int) -> Residual:
    body = nn.Sequential(
        _conv3(channels, out, stride),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
        _conv3(out, out),
        nn.BatchNorm2d(out),
    )
    shortcut: nn.Module = nn.Identity()
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return Residual(before=nn.Identity(), body=body, shortcut=shortcut, after=nn.ReLU(inplace=True))


def _wide_block(channels: int, out: int, stride: int, dropout: float) -> Residual:
    activation = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    body = nn.Sequential(
        _conv3(channels, out, stride),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
        *([nn.Dropout(dropout)] if dropout else []),
        _conv3(out, out),
    )
    if stride == 1 and channels == out:
        body = nn.Sequential(*activation, *body)
        return Residual(before=nn.Identity(), body=body, shortcut=nn.Identity(), after=nn.Identity())
    shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
    return Residual(before=activation, body=body, shortcut=shortcut, after=nn.Identity())


def _conv3(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)


def _initialised(network: nn.Module) -> nn.Module:
    """Kaiming normal initialisation of all convolutions (He et al. 2015, arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _check_positive(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise InputError(f"expected {name} ≥ 1, got {value}")


def _check_share(**options: float) -> None:
    for name, value in options.items():
        if not 0 <= value < 1:
            raise InputError(f"expected {name} from 0 to below 1, got {value}")


def _check_side(input_shape: tuple[int, int, int], least: int) -> None:
    if min(input_shape[1:]) < least:
        height, width = input_shape[1:]
        raise InputError(
            f"expected images of at least {least}×{least} pixels, got {height}×{width}: take a smaller network"
        )
