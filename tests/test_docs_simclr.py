"""SimCLR on one page is the package's: the same numbers in, the same out."""

import importlib.util
from pathlib import Path

import pytest
import torch

from sslcourse import augment, device, losses
from sslcourse.data.imageset import ImageSet

PATH = Path(__file__).parents[1] / "docs" / "simclr_one_file.py"
spec = importlib.util.spec_from_file_location("simclr_one_file", PATH)
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)


def pictures(count=12):
    return torch.randint(256, (count, 3, 20, 20), dtype=torch.uint8, generator=device.generator(0))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_its_loss_is_the_package_s(temperature):
    first, second = torch.randn(2, 7, 5, generator=device.generator(0))
    ours, expected = (f(first, second, temperature) for f in (page.nt_xent, losses.nt_xent))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("smallest", "strength", "gray"), [(0.7, 0.5, 0.2), (0.2, 1.0, 0.5), (1.0, 0.0, 1.0)])
def test_its_views_are_the_package_s(seed, smallest, strength, gray):
    shown = page.view(pictures(), device.generator(seed), smallest, strength, gray)
    how = {"scale": (smallest, 1.0), "jitter": strength, "gray": gray}
    expected = augment.view(pictures(), device.generator(seed), **how)
    torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)


def test_it_trains_and_probes(capsys):
    backbone = page.pretrain(pictures(), steps=2, batch=4)
    assert "step 0: loss" in capsys.readouterr().out
    some = ImageSet(pictures(), torch.arange(12) % 3, ("a", "b", "c"))
    assert 0 <= page.probe(backbone, some, some) <= 1


def test_it_reads_the_package_for_pictures_alone():
    lines = [line.strip() for line in PATH.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if line.startswith(("import sslcourse", "from sslcourse"))] == [
        "import sslcourse  # for the pictures alone"
    ]
    assert len(lines) <= 150
