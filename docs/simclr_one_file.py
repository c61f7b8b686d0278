"""SimCLR on one page: the map before the territory. Run it: `.venv/bin/python docs/simclr_one_file.py`, about a minute.

Two random views of each picture go through a network; of all views in the batch, each must find the one of the same
picture (Chen et al., 2020, 2002.05709). Then the network rests, and a linear classifier on its features is trained with
ten labels per class. The package does the same in its rooms: `augment.view`, `losses.nt_xent`, `pretext/simclr.py`,
`train.pretrain`, `evaluate.py`. A test holds the views and the loss of both equal.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

GRAY = torch.tensor([0.299, 0.587, 0.114])  # weights of red, green and blue in gray
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


# --- views: crop, mirror, colours --------------------------------------------------------------------------------


def stretch(start, length, size):
    """Weights (N, size, size) that bring [start, start + length) of a row of pixels to `size` pixels; length < 0 mirrors."""
    pixel = torch.arange(size) + 0.5  # centres
    wanted = start[:, None] + length[:, None] * pixel / size  # (N, size): where each new pixel lies in the old row
    weight = (1 - (wanted[..., None] - pixel).abs()).clamp(min=0)  # (N, size, size): linear between neighbours
    low, high = torch.minimum(start, start + length), torch.maximum(start, start + length)
    weight = weight * ((pixel > low[:, None, None]) & (pixel < high[:, None, None]))  # nothing from outside of the crop
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-8)


def crop_and_mirror(images, dice, smallest):
    """Of each image (N, 3, H, H) a random piece of at least the share `smallest`, as large as the image, half of them mirrored."""
    count, side = len(images), images.shape[-1]
    area, shape, down, right = torch.rand(4, count, generator=dice)
    area = side * side * (smallest + (1 - smallest) * area)
    shape = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * shape)  # width / height
    height, width = ((area * s).sqrt().clamp(1, side) for s in (1 / shape, shape))
    top, left = (side - height) * down, (side - width) * right
    mirrored = torch.rand(count, generator=dice) < 0.5
    rows = stretch(top, height, side)
    columns = stretch(torch.where(mirrored, left + width, left), torch.where(mirrored, -width, width), side)
    return rows[:, None] @ images @ columns[:, None].transpose(-1, -2)  # (N, 3, H, H)


def colours(images, dice, strength, gray):
    """Other hue, saturation, brightness and contrast for four images of five; some become gray. (N, 3, H, H) in [0, 1]."""
    count = len(images)
    draw = lambda: torch.rand(count, generator=dice)  # noqa: E731
    changed = draw() < 0.8
    brightness, contrast, saturation = (
        torch.where(changed, 1 + 0.8 * strength * (2 * draw() - 1), 1.0)[:, None, None, None] for _ in range(3)
    )
    angle = torch.where(changed, 2 * math.pi * 0.2 * strength * (2 * draw() - 1), 0.0)  # (N,) radians
    saturation = torch.where((draw() < gray)[:, None, None, None], 0.0, saturation)

    y, i, q = torch.einsum("cd,ndhw->cnhw", TO_YIQ, images)  # light, and two axes of colour
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turned = torch.stack([y, cos * i - sin * q, sin * i + cos * q])  # the colours turn about gray
    images = torch.einsum("cd,dnhw->nchw", torch.linalg.inv(TO_YIQ), turned)
    light = torch.einsum("c,nchw->nhw", GRAY, images)[:, None]  # (N, 1, H, H)
    images = brightness * (saturation * images + (1 - saturation) * light)
    mean = torch.einsum("c,nchw->nhw", GRAY, images).mean(dim=(1, 2))[:, None, None, None]
    return (contrast * images + (1 - contrast) * mean).clamp(0, 1)


def view(images, dice, smallest=0.7, strength=0.5, gray=0.2):
    """uint8 (N, 3, H, H) -> one random view of each, float in [0, 1]."""
    return colours(crop_and_mirror(images.float() / 255, dice, smallest), dice, strength, gray)


# --- network and loss --------------------------------------------------------------------------------------------


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def networks(width=32, dim=64):
    """What stays, images to features (N, 8 * width), and what is thrown away, features to embeddings (N, dim)."""
    stages = [block(a, b) for a, b in ((3, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width))]
    backbone = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    hidden = nn.Sequential(nn.Linear(8 * width, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU())
    return backbone, nn.Sequential(hidden, nn.Linear(256, dim, bias=False))


def nt_xent(first, second, temperature=0.2):
    """Each of the 2N views (N, d) and (N, d) must find its partner among the 2N - 1 others."""
    z = F.normalize(torch.cat([first, second]), dim=1)  # (2N, d)
    cosines = z @ z.T / temperature  # (2N, 2N)
    cosines.fill_diagonal_(-math.inf)  # no view is its own partner
    partner = torch.arange(len(z)).roll(len(first))
    return F.cross_entropy(cosines, partner)


# --- loop and probe ----------------------------------------------------------------------------------------------


def pretrain(images, steps=700, batch=64, rate=3e-3, seed=0):
    """A backbone trained on images (N, 3, H, H) without labels."""
    torch.manual_seed(seed)
    dice = torch.Generator().manual_seed(seed)
    backbone, projector = networks()
    optimizer = torch.optim.AdamW([*backbone.parameters(), *projector.parameters()], weight_decay=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, 10 * step / steps) * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = images[torch.randint(len(images), (batch,), generator=dice)]
        first, second = projector(backbone(torch.cat([view(chosen, dice), view(chosen, dice)]))).chunk(2)
        loss = nt_xent(first, second)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}, and {math.log(2 * batch - 1):.3f} when all views are alike")
    return backbone


def probe(backbone, train, test):
    """Test accuracy of a linear classifier on the features of a resting backbone, trained on the labels of `train`."""
    backbone.eval()
    with torch.no_grad():
        x, unseen = (backbone(part.images.float() / 255) for part in (train, test))
    mean, spread = x.mean(dim=0), x.std(dim=0) + 1e-6
    classifier = nn.Linear(x.shape[1], len(train.classes))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(classifier((x - mean) / spread), train.labels).backward()
        optimizer.step()
    return (classifier((unseen - mean) / spread).argmax(dim=1) == test.labels).float().mean().item()


if __name__ == "__main__":
    import sslcourse  # for the pictures alone

    splits = sslcourse.load("world", size=32)
    few = splits.train.sample_per_class(10, seed=0)
    torch.manual_seed(0)
    print(f"random weights:       {probe(networks()[0], few, splits.test):.3f} of the test pictures right")
    print(f"pretrained by SimCLR: {probe(pretrain(splits.unlabeled.images), few, splits.test):.3f}")
