"""`sslcourse export`: a backbone in the form that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.paths import typed


@command(stopped=texts.export_stopped)
def export(
    source: Annotated[
        str, typer.Argument(help="A run's folder, or a file of weights (the course's or other people's).")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="A new directory; for torchvision a .pth or .safetensors file.", parser=typed, metavar="OUT"
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="huggingface, torchvision or sslcourse (default: huggingface, or sslcourse where that can't)"
        ),
    ] = "auto",
    image_size: Annotated[
        int | None,
        typer.Option(help="Pixels a side that the image processor brings images to (default: as in training)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what others wrote to OUT.")] = False,
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    stem: options.Stem = None,
    normalize: options.Normalize = None,
) -> None:
    """Write a backbone so that Transformers' AutoModel.from_pretrained, or torchvision, reads it."""
    from sslcourse import weights

    backbone = weights.load(source, network=network, prefix=prefix, heads=heads, stem=stem, normalize=normalize)
    taken = weights.save(backbone, out, format, image_size=image_size, overwrite=overwrite)
    print(texts.exported(out, backbone.arch, taken))
