"""The practitioner's path at the command line: a classifier, predictions, features, and pages of pictures."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import backbones, classify


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two classes that differ in colour, 20 images of 16 pixels each; one class has a name that is hard to print."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for c, name in enumerate(("blue, $things$", "красное")):
        (folder / name).mkdir()
        for i in range(20):
            pixels = generator.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * c] += 100
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory):
    """A run's folder, of two steps."""
    from sslcourse import backbones, pretext, train
    from sslcourse.data import load

    splits = load(f"folder:{photographs}", size=16, progress=False)
    task = pretext.build("rotation", backbones.build("resnet-tiny", image_size=16))
    out = tmp_path_factory.mktemp("runs") / "rotation"
    train.pretrain(
        task, splits.unlabeled, train.TrainConfig(steps=2, batch_size=8), out=out, device="cpu", progress=False
    )
    return out


def test_from_a_run_to_predictions(call, run, photographs, tmp_path):
    arguments = ("--data", f"folder:{photographs}", "--protocol", "linear", "--folds", "3", "--out", "m.safetensors")
    code, out, err = call("finetune", run, *arguments, "--mistakes", "wrong.html")
    assert code == 0, err
    assert "accuracy 1.000" in out and "calibration error" in out and "40 images" in out
    assert "красное" in out and (tmp_path / "wrong.html").exists()
    hint = next(line for line in out.splitlines() if line.startswith("use it: ")).removeprefix("use it: sslcourse ")
    assert hint == "predict m.safetensors FOLDER --csv out.csv"
    code, out, err = call("predict", "m.safetensors", photographs, "--csv", "out.csv")
    assert code == 0 and "predictions of 40 pictures" in out
    with open("out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["path"].startswith(row["class"]) for row in rows) and len(rows) == 40


def test_a_flat_folder_with_a_table_of_labels(call, run, photographs, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    with open("labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for place in sorted(photographs.glob("*/*.png")):
            name = f"{place.parent.name[:1]}{place.name}"
            (flat / name).write_bytes(place.read_bytes())
            if int(place.stem) < 12:  # of the others nobody said what they are
                writer.writerow([name, place.parent.name[:4]])
    arguments = ("--data", f"folder:{flat}", "--labels", "labels.csv", "--protocol", "linear", "--out", "m.safetensors")
    code, out, err = call("finetune", run, *arguments, "--json")
    assert code == 0, err
    assert json.loads(out)["labels"] == 24 and json.loads(out)["cross_validated"]["accuracy"] == 1
    call("predict", "m.safetensors", flat, "--csv", "out.csv")
    with open("out.csv", encoding="utf-8", newline="") as file:
        assert all(row["class"].startswith(row["path"][0]) for row in csv.DictReader(file))


def test_few_labels_by_folds_and_as_a_curve_with_what_belongs_together(call, run, photographs, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    with open("labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "scene"])
        for place in sorted(photographs.glob("*/*.png")):
            name = f"{place.parent.name[:1]}{place.name}"
            (flat / name).write_bytes(place.read_bytes())
            writer.writerow([name, place.parent.name[:4], f"{place.parent.name[:1]}{int(place.stem) // 2}"])
    given = ("--data", f"folder:{flat}", "--labels", "labels.csv", "--protocol", "knn", "--seeds", 2)
    code, out, err = call("evaluate", run, *given, "--folds", 4, "--json")
    result = json.loads(out)
    assert code == 0 and result["folds"] == 4 and result["mean"] == 1 and result["labels_per_class"] is None, err
    assert result["test_images"] == 40 and result["independent"] == 20 and "20 test images" in result["caution"]
    low, high = result["interval95"]
    assert low < 0.95 and high == 1, "all right is not certainty, and twenty scenes are less than forty pictures"
    code, out, err = call("evaluate", run, *given, "--folds", 4, "--labels-per-class", "1,5")
    assert code == 0 and "a curve, 4 folds, 2 seeds" in out and "40 test images, in groups that count as 20" in out, err
    lines = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit() and "95% interval" in line]
    assert [line[0] for line in lines] == ["1", "5"]
    code, out, err = call("evaluate", "random", *given, "--labels-per-class", "1,3", "--json")
    result = json.loads(out)
    assert code == 0 and [one["labels_per_class"] for one in result["curve"]] == [1, 3] and result["folds"] is None, err
    assert result["test_images"] == 8 and result["independent"] == 4 and result["mean"] == result["curve"][1]["mean"]
    code, out, err = call("finetune", run, *given[:6], "--out", "m.safetensors", "--json")
    found = json.loads(out)["cross_validated"]
    assert code == 0 and found["images"] == 40 and found["independent"] == 20, err


def test_predictions_say_how_many_are_right(call, run, photographs, tmp_path):
    given = ("--data", f"folder:{photographs}", "--protocol", "knn", "--folds", "2", "--out", "m.safetensors")
    assert call("finetune", run, *given)[0] == 0
    with open("labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([f"красное/{i:02d}.png", "красное" if i else "blue, $things$"] for i in range(10))
        writer.writerow(["nobody.png", "красное"])
    predict = ("predict", "m.safetensors", photographs, "--csv", "out.csv", "--labels", "labels.csv")
    code, out, err = call(*predict, "--mistakes", "p.html")
    assert code == 0 and "accuracy 0.900 (95% interval 0.596 to 0.982; 10 images)" in out, err
    assert "1 of blue, $things$ were called красное" in out and "mistakes: 1, in p.html" in out
    assert "name no file, or several: 1, nobody.png" in err and "was made from pictures of this folder" in err
    code, out, err = call(*predict, "--json")
    assert code == 0 and json.loads(out)["measures"]["confusion"] == [[0, 1], [0, 9]], err
    code, out, err = call(*predict[:-1], photographs, "--json")
    assert code == 0 and json.loads(out)["measures"]["confusion"] == [[20, 0], [0, 20]], err
    predict = ("predict", "m.safetensors", photographs, "--csv", "new", "--labels", "labels.csv", "--mistakes", "new")
    assert "is to hold two things" in call(*predict)[2]


@pytest.mark.parametrize("how", [("--folds", 2), ("--labels-per-class", "1,5")])
def test_evaluate_says_which_classes_are_confused(call, photographs, tmp_path, how):
    """The matrix counts every seed's answers about the images whose number is said, of the most labels."""
    for i, place in enumerate(sorted(photographs.glob("*/*.png"))):
        folder = tmp_path / "mixed" / ("one" if i % 3 else "other")  # colour says nothing
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(place.read_bytes())
    given = ("evaluate", "random", "--data", "folder:mixed", "--protocol", "knn", "--seeds", 2, *how)
    code, out, err = call(*given, "--json", "--mistakes", "p.html")
    assert code == 0, err
    result = json.loads(out)
    found = result["measures"]
    assert found["images"] == result["test_images"] and found["models"] == 2
    assert result.get("curve", [result])[-1]["mean"] == result["mean"]
    (a, b), (c, d) = found["confusion"]
    assert a + b + c + d == 2 * found["images"] and (a + d) / (a + b + c + d) == pytest.approx(result["mean"])
    assert (
        found["per_class"][0]["recall"] == pytest.approx(a / (a + b)) and found["per_class"][1]["images"] == (c + d) / 2
    )
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page.count("<img") == result["mistakes"] > 0 and "one of 2 models" in page
    code, out, err = call(*given)
    assert code == 0 and "precision  recall" in out and "the answers of 2 seeds together" in out, err
    assert f"{max(b, c)} of " in out


def test_features_are_read_where_the_record_says_and_elsewhere_when_asked(call, photographs, tmp_path):
    network = backbones.build("resnet-tiny", image_size=16)
    backbones.save(network, tmp_path / "run/backbone.safetensors", image_size=16, stage="2")
    given = (
        "finetune",
        "run",
        "--data",
        f"folder:{photographs}",
        "--protocol",
        "knn",
        "--out",
        "m.safetensors",
        "--json",
    )
    code, out, err = call(*given)
    assert code == 0 and json.loads(out)["stage"] == 2 and "sslcourse: " not in err
    code, out, err = call(*given, "--stage", "3")
    said = "the features of run are read at --stage 2, its record says; --stage 3 is used, as asked."
    assert code == 0 and json.loads(out)["stage"] == 3 and said in err
    code, out, _ = call("embed", "run", photographs, "--out", "f.npy")
    assert code == 0 and np.load("f.npy").shape == (40, 32)
    code, out, err = call("embed", "run", photographs, "--out", "f.npy", "--stage", "all")
    assert code == 0 and np.load("f.npy").shape == (40, 240) and "--stage all is used, as asked" in err
    code, out, err = call("embed", "run", photographs, "--out", "f.npy", "--stage", "1", "--patches")
    assert code == 0 and np.load("f.npy").shape == (40, 8, 8, 16), err


def test_features_as_a_parquet_table_serve_the_same(call, run, photographs, tmp_path):
    pytest.importorskip("pyarrow")
    assert call("embed", run, photographs, "--out", "f.parquet")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]
    code, out, err = call("search", "f.parquet", photographs, "--like", photographs / "красное" / "03.png")
    assert code == 0 and (tmp_path / "search.html").exists(), err
    assert call("explore", "outliers", "f.parquet", photographs)[0] == 0


def test_labels_that_lie_beside_the_pictures_are_found_by_every_command(call, run, photographs, tmp_path):
    """Notices say "--labels labels.csv" of a table in the folder, so that this must do from any other folder."""
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for i, picture in enumerate(sorted(photographs.rglob("*.png"))):
        shutil.copy(picture, flat / f"{i}.png")
        rows.append(f"{i}.png,{'red' if i % 40 >= 20 else 'blue'}\n" * (i % 4 < 3))  # some have no label
    (flat / "labels.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    given = ("--data", "folder:flat", "--labels", "labels.csv")
    code, out, err = call("evaluate", run, *given, "--protocol", "knn", "--folds", "3", "--json")
    assert code == 0 and json.loads(out)["test_images"] == 30, err
    assert "cut from the training images" not in err  # folds cut nothing away
    code, out, err = call("finetune", run, *given, "--protocol", "knn", "--out", "m.safetensors")
    assert code == 0 and "classifier, of all 30 labels" in out and "cut from the training images" not in err, err
    code, out, err = call("finetune", run, *given, "--protocol", "knn", "--out", "m.safetensors", "--test")
    assert code == 0 and "classifier, of these 24 labels" in out and "cut from the training images" in err, err
    code, out, err = call("predict", "m.safetensors", "flat", "--csv", "out.csv", "--labels", "labels.csv")
    assert code == 0 and "30 images" in out, err
    assert call("embed", run, "flat", "--out", "f.npy")[0] == 0
    code, out, err = call("explore", "label-next", "f.npy", "flat", "--count", "10", "--labelled", "labels.csv")
    assert code == 0 and set(out.split()) == {f"{i}.png" for i in range(40) if i % 4 == 3}, err
    code, out, err = call(
        "pretrain", "rotation", *given, "--steps", "1", "--batch-size", "4", "--size", "16", "--out", "again"
    )
    assert code == 0, err
    code, out, err = call("evaluate", "again", "--protocol", "knn", "--labels-per-class", "2", "--seeds", "1")
    assert code == 0, err  # the run's folder knows where its table lies


def test_measuring_reads_no_picture_without_a_label(call, run, photographs, tmp_path, monkeypatch):
    from sslcourse.data import decode

    flat = tmp_path / "flat"
    flat.mkdir()
    pictures = sorted(photographs.rglob("*.png"))
    for i, picture in enumerate(pictures):
        shutil.copy(picture, flat / f"{i}.png")
    (flat / "labels.csv").write_text(
        "".join(f"{i}.png,{'red' if i >= 20 else 'blue'}\n" for i in (*range(8), *range(20, 28))), encoding="utf-8"
    )
    seen, before = [], decode.decode
    monkeypatch.setattr(
        decode, "decode", lambda names, *rest, **more: seen.extend(names) or before(names, *rest, **more)
    )
    given = ("--data", "folder:flat", "--labels", "labels.csv", "--protocol", "knn")
    assert call("finetune", run, *given, "--out", "m.safetensors")[0] == 0
    assert len(seen) == 16
    code, _, err = call("evaluate", run, *given, "--folds", "2")
    assert code == 0 and len(seen) == 16 and "stay on disk" not in err, err  # the second time they come from the cache


def test_what_is_found_is_a_table_as_well(call, run, photographs, tmp_path):
    assert call("embed", run, photographs, "--out", "f.npy")[0] == 0
    rows = {}
    for what, more in (("duplicates", 3), ("outliers", 3), ("clusters", 3), ("label-next", 3)):
        code, _, err = call("explore", what, "f.npy", photographs, "--count", str(more), "--csv", f"{what}.csv")
        assert code == 0, err
        with open(f"{what}.csv", encoding="utf-8", newline="") as file:
            rows[what] = list(csv.DictReader(file))
    picture = photographs / "красное" / "03.png"
    assert call("search", "f.npy", photographs, "--like", picture, "--count", "2", "--csv", "search.csv")[0] == 0
    names = sorted(path.relative_to(photographs).as_posix() for path in photographs.rglob("*.png"))
    assert sorted(row["path"] for row in rows["clusters"]) == names == sorted(row["path"] for row in rows["outliers"])
    assert len({row["cluster"] for row in rows["clusters"]}) == 3
    distance = [float(row["distance"]) for row in rows["outliers"]]
    assert distance == sorted(distance, reverse=True)
    assert len(rows["duplicates"]) <= 3 and [row["order"] for row in rows["label-next"]] == ["1", "2", "3"]
    with open("search.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 3 and found[0] == {"path": "красное/03.png", "cosine": "1.000000"}
    (tmp_path / "mine.csv").write_text("my own\n", encoding="utf-8")
    code, _, err = call("explore", "outliers", "f.npy", photographs, "--csv", "mine.csv")
    assert code == 2 and "isn't a table of outliers" in err and (tmp_path / "mine.csv").read_text() == "my own\n"


def test_what_their_file_does_not_say_is_said_to_finetune_and_embed_as_to_evaluate(call, photographs, tmp_path):
    network = backbones.build("resnet-tiny", image_size=16, seed=3)
    torch.save(network.trunk.state_dict(), tmp_path / "theirs.pth")
    hints = ("--stem", network.stem, "--normalize", "none", "--size", "16")
    assert call("embed", "theirs.pth", photographs, "--out", "none.npy", *hints)[0] == 0
    code, _, err = call("embed", "theirs.pth", photographs, "--out", "half.npy", *hints[:3], "half", *hints[4:])
    assert code == 0 and not np.allclose(np.load("none.npy"), np.load("half.npy")), err
    given = ("--data", f"folder:{photographs}", "--protocol", "knn", "--out", "m.safetensors")
    code, _, err = call("finetune", "theirs.pth", *given, *hints)
    assert code == 0, err
    made = classify.load(tmp_path / "m.safetensors").backbone
    assert made.stem == network.stem and made.mean.flatten().tolist() == [0, 0, 0]
    code, _, err = call("finetune", "scratch", *given, "--heads", "3")
    assert code == 2 and "heads says how to read a file of weights" in err


def test_json_is_alone_on_standard_output(call, run, photographs):
    _, out, _ = call(
        "finetune", run, "--data", f"folder:{photographs}", "--protocol", "knn", "--test", "--json", "--out", "m.safetensors"
    )  # fmt: skip
    result = json.loads(out)
    assert result["labels"] == 32 and result["test"]["images"] == 8  # the test split stayed aside
    assert result["cross_validated"]["accuracy"] == 1 and result["image_size"] == 16
    assert set(result["calibration_error"]) == {"before", "after"}


def test_features_and_what_they_show(call, run, photographs, tmp_path):
    assert call("embed", run, photographs, "--out", "f.npy")[0] == 0
    picture = photographs / "красное" / "03.png"
    code, out, err = call("search", "f.npy", photographs, "--like", picture, "--count", "5")
    assert code == 0, err
    page = (tmp_path / "search.html").read_text(encoding="utf-8")
    assert page.count("<img") == 6 and page.index("03.png") < page.index("0.")
    for what in ("duplicates", "outliers", "clusters"):
        code, _, err = call("explore", what, "f.npy", photographs, "--count", "3", "--out", f"{what}.html")
        assert code == 0 and (tmp_path / f"{what}.html").exists(), err
    np.save("f.npy", np.ones_like(np.load("f.npy")))  # a collapsed network's
    code, _, err = call("explore", "clusters", "f.npy", photographs, "--count", "3")
    assert code == 2 and "only 1 rows are different" in err and "ask for fewer clusters" in err
    assert call("embed", run, photographs, "--out", "f.npy")[0] == 0
    with open("labels.csv", "w", encoding="utf-8") as file:
        file.write("path,label\n" + "".join(f"красное/{i:02d}.png,red\n" for i in range(20)))
    code, out, err = call("explore", "label-next", "f.npy", photographs, "--count", "4", "--labelled", "labels.csv")
    assert code == 0, err
    (tmp_path / "others.csv").write_text("path,label\nnobody.png,red\n", encoding="utf-8")
    other = call("explore", "label-next", "f.npy", photographs, "--count", "4", "--labelled", "others.csv")
    assert other[0] == 2 and "names none of the 40 pictures" in other[2]
    (tmp_path / "empty").mkdir()
    code, _, other = call("explore", "outliers", "f.npy", "empty")
    assert code == 2 and "none of these 40 pictures can be read" in other
    chosen = out.split("\n")[:4]
    assert len(set(chosen)) == 4 and all(name.startswith("blue") for name in chosen)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("finetune", "{run}", "--data", "folder:{photographs}", "--protocol", "liner", "--out", "m"), "did you mean 'linear'"),
        (("finetune", "{run}", "--data", "folder:{photographs}", "--folds", "1", "--out", "m"), "at least 2"),
        (("evaluate", "{run}", "--data", "folder:{photographs}", "--folds", "1"), "folds must be a whole number of at least 2"),
        (("evaluate", "{run}", "--data", "folder:{photographs}", "--folds", "3", "--labels-per-class", "99"), "a fold leaves"),
        (("evaluate", "{run}", "--data", "folder:{photographs}", "--labels-per-class", ""), "at least one number of labels"),
        (("evaluate", "{run}", "--data", "folder:{photographs}", "--labels-per-class", "1,x"), "whole numbers from 1 on"),
        (("finetune", "none", "--data", "folder:{photographs}", "--out", "m"), "none"),
        (("finetune", "{run}", "--data", "folder:{photographs}", "--stage", "9", "--protocol", "knn", "--out", "m"), "stage must"),
        (("predict", "none", "{photographs}", "--csv", "out.csv"), "there is no classifier at none"),
        (("predict", "{run}/backbone.safetensors", "{photographs}", "--csv", "out.csv"), "weights and no classifier"),
        (("embed", "{run}", "none", "--out", "f.npy"), "there is no folder none"),
        (("search", "none.npy", "{photographs}", "--like", "x"), "sslcourse embed"),
        (("explore", "outlier", "none.npy", "{photographs}"), "did you mean 'outliers'"),
        (("explore", "outliers", "none.npy", "nowhere"), "nowhere isn't a folder"),
        (("finetune", "{run}", "--data", "folder:{photographs}", "--out", "{run}/backbone.safetensors"), "isn't a classifier"),
    ],
)  # fmt: skip
def test_one_sentence_for_what_cannot_be_done(call, run, photographs, arguments, words):
    code, out, err = call(*(str(a).format(run=run, photographs=photographs) for a in arguments))
    assert code == 2 and out == "" and words in err and "Traceback" not in err


def test_what_is_written_is_claimed_before_anything_is_computed(call, run, photographs, tmp_path):
    from sslcourse import locking

    finetune = ("finetune", run, "--data", "folder:nowhere", "--out", "m.safetensors")
    with locking.claimed(tmp_path / "m.safetensors", file=True):
        assert "another run is writing m.safetensors" in call(*finetune)[2]
    with locking.claimed(tmp_path / "p.html", file=True):
        assert "another run is writing p.html" in call(*finetune, "--mistakes", "p.html")[2]
        evaluated = ("evaluate", "random", "--data", f"folder:{photographs}", "--mistakes", "p.html")
        assert "another run is writing p.html" in call(*evaluated)[2]
    assert "is to hold two things" in call(*finetune, "--mistakes", "m.safetensors")[2]
    (tmp_path / "folder").mkdir()
    for name in ("--out", "--mistakes"):
        code, _, err = call(*finetune, name, "folder")
        assert code == 2 and "folder is a folder, and a file is to be written there" in err
    (tmp_path / "file").write_text("")
    assert "file is a file; --out needs a folder" in call(*finetune[:-1], "file/m.safetensors")[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_preview_replaces_previews_alone(call, photographs, tmp_path):
    photograph = next(photographs.glob("*/*.png")).read_bytes()
    (tmp_path / "p.png").write_bytes(photograph)
    code, _, err = call("data", f"folder:{photographs}", "--preview", "p.png")
    assert code == 2 and "p.png is there already and isn't a preview" in err
    assert (tmp_path / "p.png").read_bytes() == photograph
    for _ in range(2):
        assert call("data", f"folder:{photographs}", "--preview", "q.png")[0] == 0


def test_what_has_a_label_is_read_as_labels_are(call, run, photographs, tmp_path):
    """In any column, with any separator, under any name that --labels knows; an empty label is none."""
    assert call("embed", run, photographs, "--out", "f.npy")[0] == 0
    names = [path.relative_to(photographs) for path in sorted(photographs.glob("*/*.png"))]
    tables = {
        "empty.csv": "path,label\n" + "".join(f'"{name}",{"blue" if i < 20 else ""}\n' for i, name in enumerate(names)),
        "semicolons.csv": "label;path\n" + "".join(f"blue;{photographs / name}\n" for name in names[:20]),
        "list.csv": "".join(f'"{name}"\n' for name in names[:20]),
    }
    for table, text in tables.items():
        (tmp_path / table).write_text(text, encoding="utf-8")
        given = ("explore", "label-next", "f.npy", photographs, "--count", "3", "--labelled", table)
        code, out, err = call(*given)
        assert code == 0 and all(line.startswith("красное") for line in out.splitlines()), err
        assert call(*given[:5], "21", *given[6:])[0] == 2


def test_a_picture_is_found_by_every_name_of_its_folder(call, run, photographs, tmp_path):
    assert call("embed", run, photographs, "--out", "f.npy")[0] == 0
    (tmp_path / "link").symlink_to(photographs)
    for top, like in (("link", photographs), (photographs, "link")):
        code, _, err = call("search", "f.npy", top, "--like", f"{like}/красное/03.png")
        assert code == 0, err


def test_fewer_folds_than_were_asked_for_are_said(call, photographs, tmp_path):
    """Six pictures of a class are enough for three folds, whose number the result says."""
    for place in sorted(photographs.glob("*/*.png")):
        if int(place.stem) < 6:
            (tmp_path / "six" / place.parent.name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "six" / place.parent.name / place.name).write_bytes(place.read_bytes())
    given = ("--data", "folder:six", "--protocol", "knn", "--seeds", "1", "--folds", "5")
    code, out, err = call("evaluate", "random", *given, "--json")
    assert code == 0 and json.loads(out)["folds"] == 3, err
    assert "5 folds were asked for, and the smallest class is enough for 3." in err


def test_the_size_that_nothing_says_is_said(call, photographs, tmp_path):
    backbones.save(backbones.build("resnet-tiny", image_size=16), tmp_path / "weights.safetensors")
    code, _, err = call("embed", "weights.safetensors", photographs, "--out", "f.npy")
    assert code == 0 and "doesn't say for images of which size it is; 64 pixels are used" in err
    for words in (
        ("embed", "weights.safetensors", photographs, "--out", "z.npy", "--size", "0"),
        ("export", "weights.safetensors", "z.pt2", "--format", "torch-export", "--image-size", "0"),
    ):
        code, _, err = call(*words)
        assert code == 2 and "must be a whole number from 8 to 4096, and is 0" in err, (
            "0 was asked for, and is no default"
        )
    assert "64 pixels" not in call("embed", "weights.safetensors", photographs, "--out", "f.npy", "--size", "16")[2]
    backbones.save(backbones.build("vit-tiny", image_size=24), tmp_path / "weights.safetensors")
    code, _, err = call("embed", "weights.safetensors", photographs, "--out", "v.npy", "--stage", "4")
    assert code == 0 and "pixels are used" not in err
