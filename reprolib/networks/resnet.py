"""Residual networks of paper 000: ResNet-18 as SCAN has it, and a narrow one of three blocks for a CPU."""

import math

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

Generator = torch.Generator | None
LAYOUTS = {"resnet18": (2, 2, 2, 2), "narrow": (1, 1, 1)}  # blocks at each width; the widths double
STEMS = ("plain", "strided", "pooled")
PROJECTED = 128  # dimensions of the projection that the contrastive loss sees (section 3)


class ResNet(nn.Sequential):
    """Embedding g: images float32 (b, c, h, w) to features (b, `n_features`), not normalised.

    A 3x3 convolution to `width` channels, basic blocks (He et al. 2016) whose width doubles and whose side halves from
    one group to the next, and the mean over the side. `stem`: "plain" at full size, as for CIFAR-10; "pooled", which
    halves the side after it, as the released SCAN does for STL-10; "strided", which halves it before, for a CPU.
    ResNet-18 of width 64 has 512 features. Weights by He's rule, all drawn from `generator`.
    """

    def __init__(self, channels: int, layout: str, width: int, stem: str, generator: Generator = None) -> None:
        first = nn.Conv2d(channels, width, 3, 1 + (stem == "strided"), 1, bias=False)
        layers = [first, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2, 2, 1)] if stem == "pooled" else []
        before = width
        for group, n_blocks in enumerate(LAYOUTS[layout]):
            after = width << group
            for block in range(n_blocks):
                stride = 1 + (group > 0 and block == 0)
                shorter = None
                if stride > 1:
                    shorter = nn.Sequential(conv1x1(before, after, stride), nn.BatchNorm2d(after))
                layers.append(BasicBlock(before, after, stride, shorter))
                before = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.n_features = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        self.to(memory_format=torch.channels_last)


class Projection(nn.Sequential):
    """p: features (b, d) to projections (b, 128), by two layers of d and 128 units (paper 000, section 3)."""

    def __init__(self, n_features: int, generator: Generator = None) -> None:
        super().__init__(nn.Linear(n_features, n_features), nn.ReLU(inplace=True), nn.Linear(n_features, PROJECTED))
        for layer in (self[0], self[2]):
            draw_linear(layer, generator)


class Classifier(nn.Module):
    """f = h(g'(x)): images (b, c, h, w) to logits (b, n_clusters) by an embedding and a linear head h."""

    def __init__(self, embedding: ResNet, n_clusters: int, generator: Generator = None) -> None:
        super().__init__()
        self.embedding, self.head = embedding, nn.Linear(embedding.n_features, n_clusters)
        draw_linear(self.head, generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.embedding(images))


def draw_linear(layer: nn.Linear, generator: Generator) -> None:
    """Weights and biases from U(-1/sqrt(n), 1/sqrt(n)) for n inputs, PyTorch's default, from a generator."""
    bound = 1 / math.sqrt(layer.in_features)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
