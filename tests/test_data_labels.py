"""Classes from a CSV file beside a flat folder: every way in which such files are written, and what is wrong with one."""

import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslcourse.data import load as load_data
from sslcourse.data.folder import survey
from sslcourse.errors import CourseError

FILES = [f"img_{i:02}.png" for i in range(12)]
LABELLED = {name: ("cat" if i % 2 else "dog") for i, name in enumerate(FILES[:10])}


@pytest.fixture
def top(tmp_path):
    """Twelve pictures in one folder, ten of which are to have labels."""
    for i, name in enumerate(FILES):
        (tmp_path / "top").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 3, 3)).save(tmp_path / "top" / name)
    return tmp_path / "top"


def write(top, text, name="labels.csv", encoding="utf-8"):
    path = top.parent / name
    path.write_bytes(text.encode(encoding))
    return path


def found(top, table):
    """split -> file -> label."""
    listing = survey(top, table)
    seen = {}
    for split, label, file in listing.rows:
        seen.setdefault(split, {})[os.path.basename(file)] = label
    return seen, " ".join(listing.warnings)


def table(separator=",", header="path,label", path=lambda name: name, quote=""):
    rows = [header.replace(",", separator)] if header else []
    rows += [f"{quote}{path(name)}{quote}{separator}{quote}{label}{quote}" for name, label in LABELLED.items()]
    return "\n".join(rows) + "\n"


WRITTEN = {
    "plain": table(),
    "no header": table(header=""),
    "semicolons": table(";"),
    "tabs": table("\t"),
    "tabs without header": table("\t", header=""),
    "quoted": table(quote='"'),
    "without endings": table(path=lambda name: name[:-4]),
    "with a folder": table(path=lambda name: f"images/{name}"),
    "with the folder itself": table(path=lambda name: f"./top/{name}"),
    "as Windows writes paths": table(path=lambda name: f"C:\\data\\top\\{name}"),
    "in other letters": table(path=lambda name: name.upper()),
    "a mark at the beginning": "\ufeff" + table(),
    "old line ends": table().replace("\n", "\r\n"),
    "empty rows": table().replace("\n", "\n\n,\n"),
    "spaces": table(", "),
    "known names": table(header="image_id,breed"),
    "upper case": table(header="Filename,Class"),
    "more columns": "id,when,label\n" + "".join(f"{name},2024,{label}\n" for name, label in LABELLED.items()),
    "a column of numbers first": ",file,label\n"
    + "".join(f"{i},{name},{label}\n" for i, (name, label) in enumerate(LABELLED.items())),
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN.keys())
def test_labels_are_read_however_they_are_written(top, text):
    seen, warnings = found(top, write(top, text))
    assert seen == {"train": LABELLED, "unlabeled": dict.fromkeys(FILES[10:], "")} and warnings == ""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_labels_in_other_encodings(top, encoding):
    seen, _ = found(top, write(top, table("\t").replace("cat", "猫"), encoding=encoding))
    assert sorted(set(seen["train"].values())) == ["dog", "猫"]


@pytest.mark.parametrize("header", ["path,label,split\n", ""])
def test_a_column_may_say_the_split(top, header):
    roles = ["train", "Training", "val", "dev", "test", "TEST", "train", "train", "unlabeled", ""]
    if not header:
        roles[-1] = "train"
    rows = [f"{name},{label},{role}\n" for (name, label), role in zip(LABELLED.items(), roles, strict=True)]
    seen, _ = found(top, write(top, header + "".join(rows)))
    assert {split: len(files) for split, files in seen.items()} == {"train": 5, "val": 2, "test": 2, "unlabeled": 3}
    assert FILES[8] in seen["unlabeled"] and seen["val"] == {FILES[2]: "dog", FILES[3]: "cat"}


PATIENTS = {name: f"p{i // 2}" for i, name in enumerate(LABELLED)}  # of each a cat and a dog


@pytest.mark.parametrize("name", ["group", "Patient", "scene_id", "Subject ID"])
def test_a_column_may_say_what_belongs_together(top, name):
    rows = [f"{file},{label},{PATIENTS[file]}\n" for file, label in LABELLED.items()]
    table = write(top, f"path,label,{name}\n" + "".join(rows))
    splits = load_data(f"folder:{top}", labels=table, progress=False, cache=False)
    seen = [
        {(PATIENTS[name], int(number)) for name, number in zip(part.names, part.groups, strict=True)}
        for part in (splits.train, splits.val, splits.test)
    ]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 5, "each patient on one side, and all of its own number"
    assert any("kept together" in note for note in splits.notes)


def test_a_picture_whose_group_is_empty_stands_alone(top):
    rows = [f"{file},{label},{'' if i < 8 else 'same'}\n" for i, (file, label) in enumerate(LABELLED.items())]
    listing = survey(top, write(top, "path,label,group\n" + "".join(rows)))
    assert sorted(map(os.path.basename, listing.groups)) == FILES[8:10] and set(listing.groups.values()) == {"same"}


def test_a_table_whose_only_other_column_is_called_group_has_classes_in_it(top):
    seen, _ = found(top, write(top, "path,group\n" + "".join(f"{f},{label}\n" for f, label in LABELLED.items())))
    assert seen["train"] == LABELLED
    assert survey(top, top.parent / "labels.csv").groups == {}


def test_several_columns_of_groups_are_not_guessed_among(top):
    rows = "".join(f"{f},{label},1,2\n" for f, label in LABELLED.items())
    with pytest.raises(CourseError, match="several columns of what belongs together .*patient.*scene"):
        survey(top, write(top, "path,label,patient,scene\n" + rows))


def test_what_rows_get_wrong_is_counted_and_said(top):
    text = table() + f"gone.png,cat\nimg_99.png,cat\n{FILES[0]},dog\n{FILES[1]},dog\n{FILES[10]},\n"
    seen, warnings = found(top, write(top, text))
    assert "rows of labels.csv that name no file, or several: 2, gone.png, img_99.png." in warnings
    assert f"labels.csv names more than once: 1, {FILES[0]}." in warnings
    assert f"with different labels or splits, and left out: 1, {FILES[1]}." in warnings
    assert FILES[0] in seen["train"] and not any(FILES[1] in files for files in seen.values())
    assert FILES[10] in seen["unlabeled"]


def test_a_name_that_two_files_have_is_not_guessed(top):
    for name in ("x", "y"):
        (top / name).mkdir()
        Image.new("RGB", (8, 8)).save(top / name / "same.png")
    seen, warnings = found(top, write(top, table() + "same.png,cat\ny/same.png,dog\n"))
    assert "name no file, or several: 1, same.png" in warnings
    assert len(seen["train"]) == 11 and len(seen["unlabeled"]) == 3


def test_a_table_in_the_folder_is_noticed_and_found(top):
    (top / "labels.csv").write_text(table())
    listing = survey(top)
    assert "labels.csv lies here; --labels labels.csv reads the classes from it." in listing.notes
    splits = load_data(f"folder:{top}", labels="labels.csv", progress=False, cache=False)
    assert splits.classes == ("cat", "dog") and sorted(splits.unlabeled.names) == FILES[10:]
    for part in (splits.train, splits.val, splits.test):
        assert all(part.classes[label] == LABELLED[name] for label, name in zip(part.labels, part.names, strict=True))
    assert not any("lies here" in note for note in splits.notes)


REFUSED = {
    "no file": (None, "there is no file .*gone.csv"),
    "nothing in it": ("", "no row of .* names an image"),
    "other names": ("a,b\nc,d\n", "no row of .* names an image of .*top"),
    "one column": ("\n".join(FILES), "no row of .* names an image"),
    "several classes": ("path,height,width\n" + "".join(f"{f},1,2\n" for f in FILES), "columns .path, height, width.; call"),
    "three columns without names": ("".join(f"{f},1,2\n" for f in FILES), "can't be told from its columns"),
    "a split of another name": ("path,label,split\n" + "".join(f"{f},a,holdout\n" for f in FILES), "'holdout' .* isn't a split"),
    "one class": ("".join(f"{f},a\n" for f in FILES), "has one class"),
    "no training": ("path,label,split\n" + "".join(f"{f},a,test\n" for f in FILES), "has no class in train"),
    "other classes": ("path,label,split\nimg_00,a,train\nimg_01,b,train\nimg_02,c,test\n", "class 'a' is in train but not in test"),
    "no text": ("\0\1\2" * 9, "isn't a text file"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_table_that_says_nothing_is_refused(top, text, sentence):
    path = top.parent / "gone.csv" if text is None else write(top, text)
    with pytest.raises(CourseError, match=sentence) as error:
        survey(top, path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [3, "", "~nobody-of-this-name/x.csv", "a\0b"])
def test_what_is_no_path_is_refused(top, wrong):
    with pytest.raises(CourseError):
        load_data(f"folder:{top}", labels=wrong, progress=False)


def test_a_folder_as_table_and_labels_of_other_data_are_refused(top):
    with pytest.raises(CourseError, match="isn't a file"):
        load_data(f"folder:{top}", labels=top, progress=False)
    with pytest.raises(CourseError, match="labels from a file are for folder:PATH"):
        load_data("digits", labels="labels.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_names_that_are_not_utf8_match(top):
    os.rename(top / FILES[0], os.path.join(os.fsencode(top), b"caf\xe9.png"))
    path = top.parent / "labels.csv"
    path.write_bytes(table().encode().replace(FILES[0].encode(), b"caf\xe9.png"))
    seen, warnings = found(top, path)
    assert seen["train"][os.fsdecode(b"caf\xe9.png")] == "dog" and warnings == ""


@given(st.binary(max_size=60) | st.text(alphabet='img_0123.png,;\t"\n', max_size=80).map(str.encode))
@settings(max_examples=80, deadline=None)
def test_any_bytes_end_in_a_layout_or_a_sentence(tmp_path_factory, content):
    top = tmp_path_factory.getbasetemp() / "any"
    if not top.exists():
        top.mkdir()
        for name in FILES[:3]:
            Image.new("RGB", (8, 8)).save(top / name)
    (top.parent / "any.csv").write_bytes(content)
    try:
        survey(top, top.parent / "any.csv")
    except CourseError as error:
        assert "\n" not in str(error)


def test_a_label_that_names_a_file_as_well_is_a_label(tmp_path):
    (tmp_path / "top").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (20 * i, 3, 3)).save(tmp_path / "top" / f"{i}.png")
    text = "label,what\n1,0.png\n0,1.png\n1,2.png\n0,3.png\n"
    seen, _ = found(tmp_path / "top", write(tmp_path / "top", text))
    assert seen == {"train": {"0.png": "1", "1.png": "0", "2.png": "1", "3.png": "0"}}


def test_a_row_of_another_folder_is_not_about_the_file_of_the_same_name(tmp_path):
    """b/1.png, which isn't here, says nothing of a/1.png."""
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "top" / name)
    text = "path,label\na/0.png,cat\nb/1.png,dog\nx/b/2.png,dog\na/9.png,cat\n"
    seen, warnings = found(tmp_path / "top", write(tmp_path / "top", text))
    assert seen == {"train": {"0.png": "cat", "2.png": "dog"}, "unlabeled": {"1.png": ""}}
    assert "name no file, or several: 2, b/1.png, a/9.png" in warnings


def test_of_a_table_of_several_folders_the_rows_of_this_one_count(top):
    rows = "".join(f"top/{name},{label}\nother/{name},bird\n" for name, label in LABELLED.items())
    seen, _ = found(top, write(top, f"path,label\n{rows}"))
    assert seen["train"] == LABELLED
    for name in FILES[10:]:
        (top / name).unlink()
    with pytest.raises(CourseError, match="nothing of .*top.* is left: .*different labels"):
        found(top, write(top, f"path,label\n{rows}".replace("top/", "here/")))


def test_excel_writes_other_bytes_than_utf8(top):
    (top / FILES[0]).rename(top / "Bär.png")
    text = table(";").replace("cat", "Kätzchen").replace(FILES[0], "Bär.png")
    seen, warnings = found(top, write(top, text, encoding="cp1252"))
    assert set(seen["train"].values()) == {"Kätzchen", "dog"} and seen["train"]["Bär.png"] == "dog" and warnings == ""


DOUBTED = {
    "a label that is missing": ("NaN", "2 images are of a class 'NaN' in labels.csv; if nobody knows it, leave"),
    "capitals": ("Cat", "nearly the same, and that may be one: 'Cat' and 'cat'"),
    "a comma without quotes": ("cat, tabby", "rows of labels.csv with more values than its first row: 2;"),
}


@pytest.mark.parametrize(("label", "sentence"), DOUBTED.values(), ids=DOUBTED.keys())
def test_what_a_table_may_not_mean_is_said(top, label, sentence):
    text = table() + f"{FILES[10]},{label}\n{FILES[11]},{label}\n"
    splits = load_data(f"folder:{top}", labels=write(top, text), progress=False, cache=False)
    assert any(sentence in warning for warning in splits.warnings)


def test_columns_that_are_not_used_are_named(top):
    rows = "".join(f"{name},{label},{i > 4}\n" for i, (name, label) in enumerate(LABELLED.items()))
    assert (
        "columns of labels.csv that were not used: is_test."
        in survey(top, write(top, f"path,label,is_test\n{rows}")).notes
    )
