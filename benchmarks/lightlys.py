"""lightly's SimCLR on CIFAR-10, as its benchmark trains it: its transform, network, head, loss and optimizer.

From lightly's `benchmarks` for CIFAR-10 (lightly-ai/lightly, MIT): ResNet-18 with a 3x3 stem, a projector of 512 and 128,
NT-Xent at temperature 0.5, SGD with momentum 0.9, weight decay 5e-4 and rate 0.06 for each 128 images of a batch along a
cosine, SimCLR's transform without blur, in the worker processes of a DataLoader. bfloat16 where the device has it, as ours.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from lightly.models import ResNetGenerator
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import normalize, to_pil_image

from sslcourse import augment, backbones
from sslcourse import device as devices
from sslcourse.data.imageset import ImageSet


class Transformed(Dataset):
    """Two views of each image: uint8 (N, 3, H, W) -> float (3, H, W) twice, normalized."""

    def __init__(self, images: Tensor):
        self.pictures = [to_pil_image(image) for image in images]
        self.transform = SimCLRTransform(input_size=images.shape[-1], gaussian_blur=0.0)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> list[Tensor]:
        return self.transform(self.pictures[i])


class SimCLR(nn.Module):
    def __init__(self):
        super().__init__()
        network = ResNetGenerator("resnet-18")
        self.backbone = nn.Sequential(*list(network.children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = SimCLRProjectionHead(512, 512, 128)
        self.loss = NTXentLoss(temperature=0.5)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.loss(*(self.projector(self.backbone(view)) for view in (first, second)))

    @torch.no_grad()
    def features(self, images: ImageSet, batch_size: int = 512) -> Tensor:
        """float32 (N, 512), on the CPU."""
        place = next(self.parameters()).device
        with devices.evaluating(self):
            return torch.cat([
                self.backbone(_normalized(part.to(place))).float().cpu() for part in images.images.split(batch_size)
            ])  # fmt: skip


def _normalized(images: Tensor) -> Tensor:
    return normalize(augment.to_float(images), backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)


class Run:
    """A training that goes on in pieces: whole epochs, kept in `out` after each.

    seconds  of training in all pieces so far, the starting of workers included
    """

    def __init__(
        self, images: Tensor, epochs: int, batch: int, seed: int, where: torch.device, out: Path,
        workers: int | None = None,
    ):  # fmt: skip
        torch.manual_seed(seed)
        self.images, self.epochs, self.where, self.file = images, epochs, where, out / "lightly.pt"
        self.model = SimCLR().to(where, memory_format=devices.memory_format(where)).train()
        rate = 0.06 * batch / 128
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)
        self.done, self.seconds = 0, 0.0
        workers = (os.cpu_count() or 1) if workers is None else workers
        self.loader = DataLoader(
            Transformed(images), batch, shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=where.type == "cuda",
        )  # fmt: skip
        if self.file.exists():
            self.restore(torch.load(self.file, map_location=where, weights_only=True))

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}

    def restore(self, kept: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(kept[name])
        self.done, self.seconds = kept["done"], kept["seconds"]

    def go_on(self, minutes: float) -> bool:
        """Train for at most about `minutes`; whether all epochs are done."""
        begin = last = time.perf_counter()
        while self.done < self.epochs and last - begin < 60 * minutes:
            self.epoch()
            devices.synchronize(self.where)
            now = time.perf_counter()
            self.done, self.seconds, last = self.done + 1, self.seconds + now - last, now
            state = {name: part.state_dict() for name, part in self.parts().items()}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state | {"done": self.done, "seconds": self.seconds}, self.file)
        return self.done == self.epochs

    def epoch(self) -> None:
        for first, second in self.loader:
            first, second = (view.to(self.where, non_blocking=True) for view in (first, second))
            with devices.autocast(self.where):
                loss = self.model(first, second)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self.schedule.step()
