"""The long run of lesson 16: CLIP with hard negatives on the lesson's captions, with more steps and more pictures than a lesson's.

    python benchmarks/captions.py --steps 5000 --pictures 24000 --runs RUNS --bundle

Goes on where it was stopped (RUNS holds its checkpoints) and measures what the lesson measures. The record is kept in `captions.json`,
beside those of other numbers of steps and pictures: command, commit, device, seconds, what was measured. With --bundle, both towers go
into the package as well, with 16 bits a number, in the place of those that are there, and beside them the record with their SHA-256.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from sslcourse import backbones, pretext, train
from sslcourse import device as devices
from sslcourse.data import world, world_captions
from sslcourse.files import write_atomically
from sslcourse.transfer import language, language_file


def measured(task: pretext.PretextTask) -> dict[str, float]:
    """What lesson 16 measures of a network of images and texts, on test pictures."""
    things, crowds = world.split("test", 2000), world_captions.captioned("test", 1000)
    seen = language.of_images(task, crowds)
    heard = language.of_texts(task, [several[0] for several in crowds.captions])
    found = {"zero-shot": language.zero_shot(task, things)}
    for domain in ("night", "sketch"):
        found[f"zero-shot, {domain}"] = language.zero_shot(task, world.split("test", 1000, domain=domain))
    found |= {"picture by sentence, recall at 10": language.recall(heard, seen)}
    found |= {"sentence by picture, recall at 10": language.recall(seen, heard)}
    for what in ("colours", "places"):
        c = world_captions.swapped(what)
        found[f"{what} swapped"] = language.preferred(task, c.images, c.right, c.wrong).double().mean().item()
    return found


def keep(record: dict, path: Path) -> None:
    """The record into the file, in the place of one of as many steps and pictures."""
    known = json.loads(path.read_text())["runs"] if path.exists() else []
    same = [record[name] for name in ("steps", "pictures of each kind")]
    others = [one for one in known if [one["steps"], one["pictures of each kind"]] != same]
    runs = sorted([*others, record], key=lambda one: (one["pictures of each kind"], one["steps"]))
    write_atomically(path, (json.dumps({"runs": runs}, indent=1) + "\n").encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--pictures", type=int, default=24_000, help="of one thing, and as many of several")
    parser.add_argument("--runs", type=Path, required=True, help="a folder for checkpoints")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("captions.json"))
    parser.add_argument("--bundle", action="store_true", help="put both towers into the package")
    options = parser.parse_args()
    task = pretext.build("clip", backbones.build(seed=0), swapped=True)
    config = train.TrainConfig(steps=options.steps, batch_size=128, **task.recipe)
    begin, where = time.perf_counter(), devices.pick_device(options.device)
    train.pretrain(
        task, world_captions.gallery(n=options.pictures), config, out=options.runs, resume=True, device=where
    )
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    record = {
        "command": f"python benchmarks/captions.py --steps {options.steps} --pictures {options.pictures}",
        "commit": commit, "device": devices.report(where), "seconds of the last piece": round(time.perf_counter() - begin),
        "steps": options.steps, "pictures of each kind": options.pictures,
        "measured": {name: round(value, 4) for name, value in measured(task).items()},
    }  # fmt: skip
    keep(record, options.out)
    print(record["measured"])
    if options.bundle:
        print(language_file.put(task, record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
