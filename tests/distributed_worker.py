"""What tests/test_distributed.py starts under torchrun: `distributed_worker.py JOB FOLDER`."""

import os
import sys
from pathlib import Path

import captions
import torch
import torch.distributed as dist

from sslcourse import backbones, device, distributed, pretext, train

METHODS = {
    "simclr": {}, "moco": {"queue": 40}, "byol": {}, "simsiam": {}, "barlow": {}, "vicreg": {}, "swav": {"prototypes": 8},
    "dino": {"local": 0}, "rotation": {}, "lejepa": {}, "ibot": {"koleo": 0.1, "gram": 1.0}, "ijepa": {},
    "clip": {"swapped": True}, "siglip": {},
}  # fmt: skip
ARCH = {"ibot": "vit-tiny", "ijepa": "vit-tiny"}
IMAGES = 24


def images():
    return torch.randint(256, (IMAGES, 3, 16, 16), dtype=torch.uint8, generator=device.generator(0))


def views_of(task, part):
    """The joint batch's views; of them, for part (i, n), the i-th of n parts, image by image."""
    views = task.views(images(), device.generator(1), *task.beside(captions.material(task.name, images())))
    per_image = [view.view(-1, IMAGES, *view.shape[1:]) for view in views]  # (views of each image, N, ...)
    index, parts = part
    return [view.chunk(parts, dim=1)[index].flatten(0, 1) for view in per_image]


def smooth(module):
    """The same network with GELU for ReLU, whose gradient jumps: one input within rounding of zero moves it by 1%."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(parent, name, torch.nn.GELU())


def gradients(name, part=(0, 1)):
    """Gradients and buffers after one step of a method on a part of the joint batch."""
    task = pretext.build(name, backbones.build(ARCH.get(name, "resnet-tiny"), image_size=16, seed=3), **METHODS[name])
    if name == "ibot":
        task.anchored.fill_(1.0)
    for head in task.modules():  # heads that start at zero pass no gradient to the backbone
        if isinstance(head, torch.nn.Linear) and not head.weight.any():
            torch.nn.init.normal_(head.weight, generator=device.generator(2))
    smooth(task)
    distributed.synchronize_batch_norm(task)
    model = distributed.wrap(task.train(), torch.device("cpu"))
    loss, _ = model(*views_of(task, part))
    loss.backward()
    found = {f"gradient of {n}": p.grad for n, p in task.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": b for n, b in task.named_buffers()}


def own_rows_restored(x):
    """A gather that many have written: the loss is right, and what other processes say of our rows is lost."""
    parts = [torch.empty_like(x) for _ in range(distributed.size())]
    dist.all_gather(parts, x.detach().contiguous())
    parts[distributed.rank()] = x
    return torch.cat(parts)


def compare_gradients(folder):
    part = (distributed.rank(), distributed.size())
    result = {name: gradients(name, part) for name in METHODS}
    right = distributed.gather
    distributed.gather = own_rows_restored
    result |= {f"{name}, own rows restored": gradients(name, part) for name in ("simclr", "barlow")}
    distributed.gather = right
    synchronize, distributed.synchronize_batch_norm = distributed.synchronize_batch_norm, lambda module: None
    result["rotation, own batch norm"] = gradients("rotation", part)
    distributed.synchronize_batch_norm = synchronize
    torch.save(result, folder / f"rank{distributed.rank()}.pt")


def pretrain(folder, dies=False):
    """Train MoCo; with `dies`, process 1 is gone after step 5 the first time."""

    def die(record):
        if dies and record["step"] == 5 and distributed.rank() == 1 and not distributed.restarted():
            os._exit(1)

    config = train.TrainConfig(steps=8, batch_size=8, log_every=1, checkpoint_every=2)
    task = pretext.build("moco", backbones.build("resnet-tiny", image_size=16), queue=20)
    resume = distributed.restarted()
    train.pretrain(task, images(), config, out=folder / "run", resume=resume, device="cpu", progress=False, on_log=die)


if __name__ == "__main__":
    job, place = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    if job == "gradients":
        distributed.start(torch.device("cpu"))
        compare_gradients(place)
    pretrain(place, dies=job == "dies")
    if dist.is_initialized():
        distributed.wait()  # a process that is gone while another still talks to it ends that one
        dist.destroy_process_group()
