"""The store of backbones: what is asked for once is trained once, and nothing old is taken for something new."""

import ast
import os
import shutil
import subprocess
import sys

import pytest
import torch
from captions import EVERY_TASK, material

from sslcourse import backbones, checkpoint, pretext, store, train
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, Diverged

SMALL = {"steps": 3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def images():
    return ImageSet(torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def state(backbone):
    return backbone.state_dict()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(state(a).values(), state(b).values(), strict=True))


@pytest.mark.training
@pytest.mark.parametrize("task", list(EVERY_TASK))
def test_the_store_gives_what_training_gives(task, images):
    asked, images = store.recipe(task, **SMALL).fitted(len(images)), material(task, images.images)
    images = images if isinstance(images, ImageSet) else ImageSet(images)
    model = asked.build(32)
    train.pretrain(model, images, asked.config, progress=False)
    found = store.pretrained(task, images, **SMALL)
    assert equal(found, model.backbone.eval())
    assert not found.training


def test_it_trains_once_and_says_how_long(images, capsys):
    first = store.pretrained("rotation", images, **SMALL)
    said = capsys.readouterr().err
    assert "pretraining rotation, 3 steps" in said and " s on two cores" in said
    again = store.pretrained("rotation", images, **SMALL)
    assert capsys.readouterr().err == ""
    assert equal(first, again)
    assert [path.suffix for path in sorted(store.folder().iterdir())].count(".safetensors") == 1
    assert not list(store.folder().glob("*.run"))


def test_everything_that_decides_the_weights_is_in_the_name(images, monkeypatch):
    def name(task="simclr", pictures=images, **changes):
        return store.entry(store.recipe(task, **(SMALL | changes)), pictures).name

    turned = ImageSet(images.images.flip(3))
    names = [name(), name("vicreg"), name(seed=1), name(steps=4), name(temperature=0.3), name(pictures=turned)]
    names.append(name(backbone="resnet18"))
    monkeypatch.setattr(torch, "__version__", "0.0")
    names.append(name())
    monkeypatch.undo()
    monkeypatch.setattr(store, "code_digest", lambda task: "another")
    names.append(name())
    assert len(set(names)) == len(names)
    assert name() == names[-1], "the same question has the same answer"


def test_the_code_is_read_without_its_words():
    def words(code):
        return store._without_words(ast.parse(code))

    bare = "class A:\n    x = 1\n    def f(self):\n        return 2\n"
    told = '"""Why."""\nclass A:\n    "Of it."\n    x = 1  # one\n    settings = {"seconds": 3}\n    def f(self):\n        """And so."""\n        return 2\n'
    assert words(bare) == words(told)
    assert words(bare) != words(bare.replace("2", "3"))
    assert words(bare) != words(bare.replace("x = 1", "x = 2"))


def test_every_file_that_trains_is_in_the_digest():
    """What the training modules import of the package is either read into the digest or decides no weight."""
    found, todo = (
        set(),
        ["train", "pretext.two_views", *(f"pretext.{name}" for name in EVERY_TASK), "pretext.image_text"],
    )
    package = store.Path(store.__file__).parent
    while todo:
        module = todo.pop()
        tree = ast.parse((package / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "sslcourse":
                new = {alias.name for alias in node.names} - found - {"pretext"}
                found |= new
                todo += sorted(new)
    harmless = {"data", "errors", "files", "locking", "supervised"}  # the last one is of fine-tuning
    assert found - harmless <= set(store.CODE)


def test_what_a_task_builds_upon_is_in_its_digest():
    def names(task):
        return {path.stem for path in store._task_files(task)}

    assert names("rotation") == {"base", "rotation"}
    assert names("simclr") == {"base", "simclr", "two_views"}
    assert names("ibot") == {"base", "dino", "ibot", "mae", "two_views"}


def test_training_that_was_stopped_goes_on(images, capsys, monkeypatch):
    whole = store.pretrained("moco", images, steps=6)
    shutil.rmtree(store.folder())

    class Stop(Exception):
        pass

    original = pretext.find("moco").after_step

    def stop_at_the_fourth(self, progress):
        original(self, progress)
        if progress > 0.6:
            raise Stop

    asked = store.recipe("moco", steps=6)
    every_two = train.dataclasses.replace(asked.config, checkpoint_every=2)
    monkeypatch.setattr(store, "recipe", lambda *a, **k: train.dataclasses.replace(asked, config=every_two))
    with monkeypatch.context() as patch:
        patch.setattr(pretext.find("moco"), "after_step", stop_at_the_fourth)
        with pytest.raises(Stop):
            store.pretrained("moco", images)
    assert list(store.folder().glob("*.run/checkpoint.pt"))
    trained = []

    def counted(self, progress):
        trained.append(round(6 * progress))
        original(self, progress)

    monkeypatch.setattr(pretext.find("moco"), "after_step", counted)
    assert equal(store.pretrained("moco", images), whole)
    assert trained == [3, 4, 5, 6], "two steps were in the checkpoint"
    assert not list(store.folder().glob("*.run"))


def test_a_damaged_checkpoint_is_begun_anew(images):
    whole = store.pretrained("rotation", images, **SMALL)
    path = next(store.folder().glob("*.safetensors"))
    path.unlink()
    begun = path.with_suffix(".run")
    begun.mkdir()
    (begun / "checkpoint.pt").write_bytes(b"half of one")
    assert equal(store.pretrained("rotation", images, **SMALL), whole)


def test_a_run_that_diverges_at_a_checkpoint_keeps_the_good_one_and_is_not_trained_again(images, monkeypatch):
    """A weight that is no number is noticed when it would be saved, as the loss before it was one."""
    asked = store.recipe("rotation", steps=6)
    config = train.dataclasses.replace(asked.config, checkpoint_every=2)
    monkeypatch.setattr(store, "recipe", lambda *a, **k: train.dataclasses.replace(asked, config=config))
    trained = []

    def spoil(self, progress):
        trained.append(progress)
        if len(trained) == 4:
            with torch.no_grad():
                self.head[-1].bias.fill_(torch.nan)

    monkeypatch.setattr(pretext.find("rotation"), "after_step", spoil)
    with pytest.raises(Diverged, match="no longer finite after step 4"):
        store.pretrained("rotation", images)
    (kept,) = store.folder().glob("*.run/checkpoint.pt")
    assert checkpoint.read(kept)["step"] == 2
    assert len(trained) == 4


def test_an_error_that_speaks_of_damage_deletes_nothing(images, monkeypatch):
    """Errors are told apart by their class, never by their words."""
    begun = store.entry(store.recipe("rotation", **SMALL), images).with_suffix(".run")
    begun.mkdir(parents=True)
    (begun / "checkpoint.pt").write_bytes(b"precious")

    def refuse(*args, **options):
        raise CourseError("checkpoint.pt is damaged or not a checkpoint (BadZipFile).")

    monkeypatch.setattr(train, "pretrain", refuse)
    with pytest.raises(CourseError, match="damaged"):
        store.pretrained("rotation", images, **SMALL)
    assert (begun / "checkpoint.pt").read_bytes() == b"precious"


def test_a_damaged_entry_is_made_again_with_a_notice(images, capsys):
    whole = store.pretrained("rotation", images, **SMALL)
    path = next(store.folder().glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    capsys.readouterr()
    assert equal(store.pretrained("rotation", images, **SMALL), whole)
    assert "made again" in capsys.readouterr().err


def test_a_store_that_cannot_be_written_costs_time_only(images, own_cache, capsys):
    own_cache.parent.mkdir(exist_ok=True)
    own_cache.write_text("a file where the folder should be")
    backbone = store.pretrained("rotation", images, **SMALL)
    assert isinstance(backbone, backbones.Backbone)
    assert "could not write" in capsys.readouterr().err


@pytest.mark.training
def test_two_processes_train_one_backbone(images, own_cache, tmp_path):
    torch.save(images.images, tmp_path / "images.pt")
    code = (
        "import torch; from sslcourse import store; from sslcourse.data.imageset import ImageSet; "
        f"images = ImageSet(torch.load({str(tmp_path / 'images.pt')!r})); "
        "print(store.pretrained('rotation', images, steps=12).state_dict()['trunk.conv1.weight'].flatten().tolist())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    out, err = zip(*(process.communicate(timeout=120) for process in both), strict=True)
    assert [process.returncode for process in both] == [0, 0], err
    assert out[0] == out[1]
    assert "".join(err).count("pretraining rotation") == 1


def test_old_entries_make_room_for_new_ones(images, monkeypatch):
    store.pretrained("rotation", images, **SMALL)
    first = next(store.folder().glob("*.safetensors"))
    monkeypatch.setattr(store, "LIMIT", int(1.5 * first.stat().st_size))
    os.utime(first, (0, 0))
    store.pretrained("rotation", images, seed=1, **SMALL)
    assert not first.exists()
    assert len(list(store.folder().glob("*.safetensors"))) == 1


def test_a_batch_is_not_larger_than_the_set(images):
    few = images.select(slice(10))
    assert isinstance(store.pretrained("simclr", few, **SMALL), backbones.Backbone)


def test_wrong_names_are_refused_before_anything_is_computed(images):
    with pytest.raises(CourseError, match="rotation"):
        store.pretrained("rotatoin", images)
    with pytest.raises(CourseError, match="option"):
        store.pretrained("rotation", images, turns=3)
    with pytest.raises(CourseError, match="steps"):
        store.recipe("rotation", steps=0)


@pytest.mark.parametrize("task", list(EVERY_TASK))
def test_every_task_has_settings_of_the_course(task):
    kind = pretext.find(task)
    assert set(kind.settings) <= {"steps", "batch_size", "backbone", "options", "seconds"}
    assert {"steps", "seconds"} <= set(kind.settings)
    assert kind.settings["seconds"] <= 90
    store.recipe(task).build(32)
