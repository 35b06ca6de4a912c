"""Three networks for images, written in torch, with random weights: like ResNet-18, MobileNetV2 and ViT-tiny.

Run as a script, each is compiled by `torch.compile(model, backend="autotune")` and must name the same class as torch
does for every image: `python examples/torch_networks.py [IMAGES] [SIZE]`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn


def normed(ci: int, co: int, kernel: int, stride: int = 1, groups: int = 1, act: Any = None) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(ci, co, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(co)]
    return nn.Sequential(*layers, *([act] if act else []))


class Residual(nn.Module):
    """act(body(x) + shortcut(x)); the shortcut is x itself where nothing is given, act too."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, x: Any) -> Any:
        return self.act(self.body(x) + self.shortcut(x))


class Mean(nn.Module):
    """The mean over height and width."""

    def forward(self, x: Any) -> Any:
        return x.mean((2, 3))


def resnet18(classes: int = 1000) -> nn.Module:
    """K. He et al., Deep Residual Learning for Image Recognition, table 1, 18 layers."""
    layers: list[nn.Module] = [normed(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    ci = 64
    for co, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            body = nn.Sequential(normed(ci, co, 3, stride, act=nn.ReLU()), normed(co, co, 3))
            layers.append(Residual(body, None if ci == co else normed(ci, co, 1, stride), nn.ReLU()))
            ci = co
    return nn.Sequential(*layers, Mean(), nn.Linear(ci, classes))


def mobilenet_v2(classes: int = 1000) -> nn.Module:
    """M. Sandler et al., MobileNetV2, table 2: (expansion, channels, blocks, stride of the first)."""
    layers: list[nn.Module] = [normed(3, 32, 3, 2, act=nn.ReLU6())]
    ci = 32
    table = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expansion, co, blocks, first in table:
        for stride in (first, *(1,) * (blocks - 1)):
            inner = ci * expansion
            body = nn.Sequential(
                *([normed(ci, inner, 1, act=nn.ReLU6())] if expansion > 1 else []),
                normed(inner, inner, 3, stride, inner, nn.ReLU6()), normed(inner, co, 1),
            )  # fmt: skip
            layers.append(Residual(body) if stride == 1 and ci == co else body)
            ci = co
    return nn.Sequential(*layers, normed(ci, 1280, 1, act=nn.ReLU6()), Mean(), nn.Linear(1280, classes))


class Attention(nn.Module):
    """Self-attention of (n, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, tokens, width))


class VisionTransformer(nn.Module):
    """A. Dosovitskiy et al., An Image is Worth 16x16 Words; "tiny": 12 blocks of width 192 and 3 heads."""

    def __init__(self, size: int = 224, patch: int = 16, width: int = 192, heads: int = 3, depth: int = 12,
                 classes: int = 1000) -> None:  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, classes)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def block(width: int, heads: int, expansion: int = 4) -> nn.Sequential:
    """A transformer's block, norms first."""
    inner = nn.Sequential(nn.Linear(width, width * expansion), nn.GELU(), nn.Linear(width * expansion, width))
    attention = nn.Sequential(nn.LayerNorm(width, 1e-6), Attention(width, heads))
    return nn.Sequential(Residual(attention), Residual(nn.Sequential(nn.LayerNorm(width, 1e-6), inner)))


def vit_tiny(size: int = 224, classes: int = 1000) -> nn.Module:
    """A VisionTransformer for images of size x size."""
    return VisionTransformer(size, classes=classes)


def networks(size: int = 224) -> dict[str, nn.Module]:
    """All three by name, ready for inference, for images of size x size."""
    torch.manual_seed(0)
    made = {"resnet18": resnet18(), "mobilenet_v2": mobilenet_v2(), "vit_tiny": vit_tiny(size)}
    for model in made.values():
        model.eval()
    with torch.no_grad():  # batch norms that have seen images, so that signals neither grow nor fade
        for name in ("resnet18", "mobilenet_v2"):
            made[name].train()(torch.randn(8, 3, size, size))
            made[name].train()(torch.randn(8, 3, size, size))
            made[name].eval()
    return made


def main(images: int = 100, size: int = 224) -> None:
    """Print one line a network. Raises SystemExit where a class differs."""
    for name, model in networks(size).items():
        compiled = torch.compile(model, backend="autotune", dynamic=False)
        generator, different = torch.Generator().manual_seed(1), 0
        with torch.no_grad():
            for _ in range(images):
                image = torch.randn(1, 3, size, size, generator=generator)
                different += int(compiled(image).argmax() != model(image).argmax())
        print(f"{name}: {images - different} of {images} images have torch's class")
        if different:
            raise SystemExit(1)


if __name__ == "__main__":
    import autotune.plugins.torch  # noqa: F401  (names the backend where the package is not installed)

    main(*map(int, sys.argv[1:]))
