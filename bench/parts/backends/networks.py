"""Networks of the size and shape of well-known ones. Their weights are random, which is as fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(
    inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type = nn.SiLU
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(outside), act())


class _Residual(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow; with a short cut where the shape stays."""

    def __init__(self, inside: int, outside: int, stride: int, widen: int) -> None:
        super().__init__()
        middle = inside * widen
        first = [conv(inside, middle, 1, act=nn.ReLU6)] if widen > 1 else []
        self.layers = nn.Sequential(
            *first,
            conv(middle, middle, 3, stride, middle, act=nn.ReLU6),
            conv(middle, outside, 1, act=nn.Identity),
        )
        self.short_cut = stride == 1 and inside == outside

    def forward(self, image: Tensor) -> Tensor:
        out = self.layers(image)
        return image + out if self.short_cut else out


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0 (Sandler et al., 2018)."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2, act=nn.ReLU6)]
    inside = 32
    for widen, outside, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(count):
            layers.append(_Residual(inside, outside, stride if i == 0 else 1, widen))
            inside = outside
    tail = [conv(320, 1280, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, *tail)


class _Split(nn.Module):
    """YOLOv8's C2f: half of the channels go through a chain whose every link is kept."""

    def __init__(self, inside: int, outside: int, count: int, short_cut: bool) -> None:
        super().__init__()
        self.half, self.short_cut = outside // 2, short_cut
        self.first = conv(inside, outside, 1)
        self.chain = nn.ModuleList(
            nn.Sequential(conv(self.half, self.half), conv(self.half, self.half)) for _ in range(count)
        )
        self.last = conv((2 + count) * self.half, outside, 1)

    def forward(self, image: Tensor) -> Tensor:
        parts = list(self.first(image).split((self.half, self.half), 1))
        for link in self.chain:
            out = link(parts[-1])
            parts.append(parts[-1] + out if self.short_cut else out)
        return self.last(torch.cat(parts, 1))


class _Pyramid(nn.Module):
    """YOLOv8's SPPF: three poolings, one after the other."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first, self.last = conv(inside, inside // 2, 1), conv(inside * 2, outside, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        parts = [self.first(image)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class YoloNano(nn.Module):
    """The layers of YOLOv8n (0.25 width, 0.33 depth), to the raw outputs of three maps in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.p2 = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), _Split(32, 32, 1, True))
        self.p3 = nn.Sequential(conv(32, 64, 3, 2), _Split(64, 64, 2, True))
        self.p4 = nn.Sequential(conv(64, 128, 3, 2), _Split(128, 128, 2, True))
        self.p5 = nn.Sequential(conv(128, 256, 3, 2), _Split(256, 256, 1, True), _Pyramid(256, 256))
        self.up4, self.up3 = _Split(384, 128, 1, False), _Split(192, 64, 1, False)
        self.down3, self.down4 = conv(64, 64, 3, 2), conv(128, 128, 3, 2)
        self.out4, self.out5 = _Split(192, 128, 1, False), _Split(384, 256, 1, False)
        self.boxes = nn.ModuleList(self._branch(inside, 64, 64) for inside in (64, 128, 256))
        self.classes = nn.ModuleList(self._branch(inside, 80, 80) for inside in (64, 128, 256))

    @staticmethod
    def _branch(inside: int, middle: int, outside: int) -> nn.Sequential:
        return nn.Sequential(conv(inside, middle), conv(middle, middle), nn.Conv2d(middle, outside, 1))

    def forward(self, image: Tensor) -> Tensor:
        p3 = self.p3(self.p2(image))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.up4(torch.cat((functional.interpolate(p5, scale_factor=2.0), p4), 1))
        n3 = self.up3(torch.cat((functional.interpolate(n4, scale_factor=2.0), p3), 1))
        m4 = self.out4(torch.cat((self.down3(n3), n4), 1))
        m5 = self.out5(torch.cat((self.down4(m4), p5), 1))
        maps = [
            torch.cat((boxes(one), classes(one)), 1).flatten(2)
            for one, boxes, classes in zip((n3, m4, m5), self.boxes, self.classes, strict=True)
        ]
        return torch.cat(maps, 2)


class _Block(nn.Module):
    """A transformer's block, normalised first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        parts = self.qkv(self.first(tokens)).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.mix(mixed.transpose(1, 2).reshape(batch, count, width))
        return tokens + self.mlp(self.second(tokens))


class TinyViT(nn.Module):
    """ViT-Ti/16 at 224 (Dosovitskiy et al., 2021; Touvron et al., 2021): 12 blocks, width 192, 3 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 192))
        self.places = nn.Parameter(torch.randn(1, 197, 192) * 0.02)
        self.blocks = nn.Sequential(*(_Block(192, 3) for _ in range(12)))
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 1000)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(image.shape[0], -1, -1), patches), 1) + self.places
        return self.head(self.norm(self.blocks(tokens))[:, 0])


@dataclass(frozen=True, slots=True)
class Network:
    """A network of random weights, always the same ones. size_px: of its square input."""

    build: Callable[[], nn.Module]
    size_px: int

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build().eval()

    def export(self, path: Path) -> None:
        """Write it as ONNX, whole or not at all: (1, 3, size, size) images -> out."""
        part = path.with_name(path.name + ".part")
        image = torch.zeros(1, 3, self.size_px, self.size_px)
        names = {"input_names": ["images"], "output_names": ["out"]}
        torch.onnx.export(self.make(), (image,), str(part), opset_version=17, dynamo=False, **names)
        part.replace(path)


NETWORKS = {
    "mobilenet_v2": Network(mobilenet_v2, 224),
    "yolo_nano": Network(YoloNano, 640),
    "vit_tiny": Network(TinyViT, 224),
}
