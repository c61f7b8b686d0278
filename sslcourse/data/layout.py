"""How public data sets lie in folders: which folder is a split, which a class, and what only wraps them.

A tree of folders (walk.py) is read as one of these; anything else is refused in a sentence that names what was found.

    CLASS/*.jpg                        one set, to be cut into splits
    SPLIT/CLASS/*.jpg                  splits, in any spelling that `role_of` knows
    CLASS/SPLIT/*.jpg                  the same, nested the other way
    FOLD1/CLASS/*.jpg, FOLD2/…         parts of one set
    images/, beside masks/ or labels/  images without classes, and annotations, which aren't images to learn from
    WRAPPER/…                          a single folder around any of these, as archives have it
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sslcourse.console import shown
from sslcourse.data.walk import Branch, named
from sslcourse.errors import CourseError

ROLES = {
    **dict.fromkeys(("train", "training", "trainval", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "te"), "test"),
    **dict.fromkeys(
        ("unlabeled", "unlabelled", "unlabel", "unlabled", "nolabel", "unsup", "unsupervised"), "unlabeled"
    ),
}
MEASURED = ("train", "val", "test")  # the roles that have classes
NOISE = {"set", "sets", "data", "dataset", "split", "image", "images", "img", "imgs", "folder", "dir", "seg", "files"}
HOLDING = {"images", "image", "img", "imgs", "photos", "pictures", "jpegimages", "jpeg", "jpg", "png", "data"}
ANNOTATIONS = {
    "labels",
    "label",
    "annotations",
    "annotation",
    "masks",
    "mask",
    "trimaps",
    "segmentations",
    "segmentation",
}
ANNOTATIONS |= {"segmentationclass", "segmentationobject", "groundtruth", "gt", "ground truth", "ground_truth", "depth"}
COPIES = {
    "thumbnails",
    "thumbnail",
    "thumbs",
    "previews",
    "preview",
    "resized",
    "cropped",
    "augmented",
    "backup",
    "copies",
}
PART = re.compile(r"(fold|cv|part|batch|chunk|shard|split|subset)[-_ ]?\d+")


@dataclass
class Layout:
    """Files by role and class.

    classes   role -> class -> files; without roles, everything is train
    unlabeled files without a class
    groups    file -> what it belongs to, such as a patient, where that is known
    named     role -> the folder's own name, for messages
    notes     how the folders were read;  warnings: what may have been meant otherwise
    """

    classes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    unlabeled: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def role_of(name: str) -> str | None:
    """train, val, test or unlabeled, for a folder or split that is called so in any of the usual ways; otherwise None.

    "Training", "test_set", "seg_train", "valid-images", "train2017" and "01_train" are such names; "train_cars" isn't.
    """
    words = [word for word in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if word]
    words = [re.sub(r"(?<=.)(set|data|images)$", "", word) for word in words if word not in NOISE]
    return ROLES.get(words[0]) if len(words) == 1 else ROLES.get("".join(words))


def read(top: Branch) -> Layout:
    """The layout of a tree of folders. Raises CourseError for one that can be read in two ways."""
    layout = Layout()
    root = _unwrapped(_without_annotations(top, layout), layout)
    roles, others = _roles(root)
    if any(_class_branches(branch) for role, branch in roles.items() if role in MEASURED):
        _take_splits(root, roles, others, layout)
    elif set(roles) & set(MEASURED) and not others:
        _refuse_loose_splits(root, roles)
    else:  # a class may be called `train` or `test`
        unlabeled = roles.pop("unlabeled", None)
        _take_classes(root, {branch.name: branch for branch in (*others.values(), *roles.values())}, layout)
        layout.unlabeled = unlabeled.everything() if unlabeled else []
    loose = root.files
    if layout.classes and loose:
        layout.notes.append(f"images outside of every class folder were left out: {len(loose):,}.")
    elif not layout.classes:
        layout.unlabeled = [*loose, *layout.unlabeled]
    return layout


# --- what only wraps ---------------------------------------------------------------------------------------------


def _unwrapped(branch: Branch, layout: Layout) -> Branch:
    """The folder within single folders, as long as what they hold has folders of its own, or they are called `images`."""
    while len(branch.branches) == 1 and not branch.files:
        (inner,) = branch.branches.values()
        if role_of(inner.name) or not (inner.branches or inner.name.lower() in HOLDING):
            break
        layout.notes.append(f"{inner.name}/ holds everything, and was opened.")
        branch = _without_annotations(inner, layout)
    return branch


def _without_annotations(branch: Branch, layout: Layout) -> Branch:
    """A folder without those of annotations that lie beside its images: masks/ beside images/."""
    extra = [name for name in branch.branches if name.lower() in ANNOTATIONS]
    if not extra or not any(name.lower() in HOLDING for name in branch.branches):
        return branch
    layout.notes.append(f"taken for annotations, and left out: {named(f'{name}/' for name in extra)}.")
    kept = {name: inner for name, inner in branch.branches.items() if name not in extra}
    return Branch(branch.path, branch.name, branch.files, kept)


# --- splits ------------------------------------------------------------------------------------------------------


def _roles(branch: Branch) -> tuple[dict[str, Branch], dict[str, Branch]]:
    """The folders that are splits, by role, and the others. Raises CourseError for two of one role."""
    roles: dict[str, Branch] = {}
    others: dict[str, Branch] = {}
    shared = _shared_words(list(branch.branches))
    for name, inner in branch.branches.items():
        role = role_of(name) or role_of(" ".join(word for word in _words(name) if word not in shared))
        if role is None:
            others[name] = inner
        elif role in roles:
            raise CourseError(f"{shown(branch.path)} holds both {roles[role].name}/ and {name}/; keep one of the two.")
        else:
            roles[role] = inner
    return roles, others


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _shared_words(names: list[str]) -> set[str]:
    """Words that all names have, where the others tell train from another split: "asl_train", "asl_test" -> {"asl"}."""
    shared = set.intersection(*(set(_words(name)) for name in names)) if len(names) > 1 else set()
    found = {role_of(" ".join(word for word in _words(name) if word not in shared)) for name in names}
    return shared if "train" in found and len(found - {None}) > 1 else set()


def _class_branches(split: Branch) -> dict[str, Branch]:
    """The class folders in a split's folder; a single folder around them, such as train/train/, is none."""
    while len(split.branches) == 1 and not split.files:
        (inner,) = split.branches.values()
        again = role_of(inner.name) or inner.name == split.name or inner.name.lower() in HOLDING
        if not again and len(inner.branches) < 2:
            break
        split = inner
    return split.branches


def _take_splits(root: Branch, roles: dict[str, Branch], others: dict[str, Branch], layout: Layout) -> None:
    layout.named = {role: branch.name for role, branch in roles.items()}
    for role, branch in roles.items():
        if role == "unlabeled":
            layout.unlabeled = branch.everything()
        elif classes := _class_branches(branch):
            layout.classes[role] = _files(
                {name: _without_annotations(inner, layout) for name, inner in classes.items()}
            )
        else:
            layout.notes.append(f"{branch.name}/ holds no class folders with images, and was left out.")
    if "train" not in layout.classes:
        raise CourseError(
            f"{shown(root.path)} holds {named(f'{layout.named[role]}/' for role in layout.classes)} but no class folders in "
            f"train/; put them at {shown(root.path)}/train/CLASS/."
        )
    renamed = [f"{name}/ as {role}" for role, name in layout.named.items() if name.lower() != role]
    if renamed:
        layout.notes.append(f"read as splits: {', '.join(renamed)}.")
    known = layout.classes["train"].keys()
    alike = [name for name, branch in others.items() if known & _class_branches(branch).keys()]
    if alike:
        layout.warnings.append(
            f"{named(f'{name}/' for name in alike)} beside {layout.named['train']}/ hold the same classes and were left out; "
            "call what is to be measured on val or test."
        )
    if different := [name for name in others if name not in alike]:
        layout.notes.append(f"folders beside {layout.named['train']}/ that were left out: {named(different)}.")
    _warn_of_deeper_classes(_class_branches(roles["train"]), layout)


def _refuse_loose_splits(root: Branch, roles: dict[str, Branch]) -> None:
    names = " and ".join(f"{roles[role].name}/" for role in MEASURED if role in roles)
    raise CourseError(
        f"there are images but no class folders in {names} of {shown(root.path)}; sort them into CLASS/ folders there, "
        "or put them into unlabeled/ to pretrain without labels."
    )


# --- classes -----------------------------------------------------------------------------------------------------


def _take_classes(root: Branch, folders: dict[str, Branch], layout: Layout) -> None:
    """One set of class folders as train, unless what they hold says that they are something else."""
    folders = {name: _without_annotations(branch, layout) for name, branch in folders.items()}
    _refuse_whole_sets(root, folders)
    if len(folders) == 1 and root.files and len(next(iter(folders.values())).branches) > 1:
        (only,) = folders.values()
        raise CourseError(
            f"{shown(root.path)} has images and one class folder, {only.name!r}, which holds several; "
            f"did you mean folder:{shown(only.path)}?"
        )
    if len(folders) > 1 and _hold_splits(root, folders):
        _take_splits_of_classes(folders, layout)
    elif len(folders) > 1 and all(PART.fullmatch(name.lower()) for name in folders):
        _take_parts(root, folders, layout)
    elif folders:
        _refuse_the_same_subfolders(root, folders)
        _warn_of_odd_classes(list(folders), layout)
        layout.classes["train"] = _files(folders)
        _warn_of_deeper_classes(folders, layout)


def _warn_of_odd_classes(names: list[str], layout: Layout) -> None:
    """Class folders that are called as splits, annotations or copies usually are. A class may well be called train."""
    splits = [name for name in names if role_of(name) in MEASURED]
    if len(splits) > 1 or any(role_of(name) != "train" for name in splits):
        layout.warnings.append(
            f"{named(splits)} are taken for classes, since they hold images and no class folders; if they are splits, "
            "sort their images into CLASS/ folders."
        )
    if beside := [name for name in names if name.lower() in ANNOTATIONS | COPIES]:
        layout.warnings.append(
            f"{named(beside)} are taken for classes; if they hold annotations or copies of the other images, move them away."
        )


def _refuse_whole_sets(root: Branch, folders: dict[str, Branch]) -> None:
    """Folders that hold splits, which hold classes, are data sets of their own."""
    for branch in folders.values():
        if any(_class_branches(inner) for inner in _roles(branch)[0].values()):
            raise CourseError(
                f"{shown(root.path)} holds {named(f'{name}/' for name in folders)}, and {branch.name}/ has splits with class "
                f"folders of its own; give one data set, such as folder:{shown(branch.path)}."
            )


def _hold_splits(root: Branch, classes: dict[str, Branch]) -> bool:
    """Whether each class holds train and another split, and nothing else. Raises CourseError where only some do."""

    def holds(branch: Branch) -> bool:
        roles, others = _roles(branch)
        return "train" in roles and len(roles) > 1 and not others and not branch.files

    holding = [f"{name}/" for name, branch in classes.items() if holds(branch)]
    if holding and len(holding) < len(classes):
        plain = named(f"{name}/" for name in classes if f"{name}/" not in holding)
        raise CourseError(
            f"in {shown(root.path)} there are splits within {named(holding)} but not within {plain}; "
            "every class folder needs the same ones, or none."
        )
    return bool(holding)


def _take_splits_of_classes(classes: dict[str, Branch], layout: Layout) -> None:
    layout.notes.append("splits were found within each class folder, and read as if they lay around the classes.")
    for name, branch in classes.items():
        for role, inner in _roles(branch)[0].items():
            if role == "unlabeled":
                layout.unlabeled += inner.everything()
            else:
                layout.named[role] = role
                layout.classes.setdefault(role, {})[name] = inner.everything()


def _take_parts(root: Branch, parts: dict[str, Branch], layout: Layout) -> None:
    """fold1/CLASS/, fold2/CLASS/, … as one set."""
    if any(branch.files for branch in parts.values()):
        raise CourseError(
            f"{named(parts)} of {shown(root.path)} are parts of one set by their names, and hold images but no class folders; "
            "sort those into CLASS/ folders, or put them into unlabeled/ to pretrain without labels."
        )
    layout.notes.append(f"{named(parts)} are parts of one set by their names, and were read as one.")
    classes = layout.classes.setdefault("train", {})
    for branch in parts.values():
        for name, inner in branch.branches.items():
            classes.setdefault(name, []).extend(inner.everything())


def _refuse_the_same_subfolders(root: Branch, folders: dict[str, Branch]) -> None:
    """Folders that all hold the same ones, such as day/cat, day/dog, night/cat, night/dog, can be read in two ways."""
    if len(folders) < 2 or any(10 * len(branch.files) > len(branch.everything()) for branch in folders.values()):
        return
    held = [set(_class_branches(branch)) for branch in folders.values()]
    common, every = set.intersection(*held), set.union(*held)
    if len(common) > 1 and 2 * len(common) > len(every):
        outer, inner, first = named(folders), named(sorted(common)), next(iter(folders.values()))
        raise CourseError(
            f"the folders {outer} of {shown(root.path)} all hold the same folders, {inner}, so that either could be the classes: "
            f"if {inner} are, give one of the outer ones, such as folder:{shown(first.path)}, or call them train, val and test; "
            f"if {outer} are, move the images up out of {inner}."
        )


def _warn_of_deeper_classes(classes: dict[str, Branch], layout: Layout) -> None:
    """Class folders that hold no image but several folders each may be kinds of classes: animals/cat, vehicles/car."""
    if len(classes) > 1 and all(len(_class_branches(branch)) > 1 and not branch.files for branch in classes.values()):
        inner = [name for branch in classes.values() for name in _class_branches(branch)]
        layout.warnings.append(
            f"the class folders hold folders of their own; the classes are {named(classes)}, and not {named(inner)}: "
            "if those are meant, move them up one folder."
        )


def _files(classes: dict[str, Branch]) -> dict[str, list[str]]:
    return {name: branch.everything() for name, branch in classes.items()}
