"""Images and words: the vocabulary, true captions, both losses, both tasks, and what is done with them without a label."""

import dataclasses
import math
import re

import pytest
import torch
from captions import told
from torch.nn import functional

from sslcourse import backbones, losses, pretext, text, train
from sslcourse.data import words, world, world_captions, writing
from sslcourse.data.imageset import ImageSet
from sslcourse.data.world_plan import BACKDROPS, COLOUR_NAMES, LIGHTS, plan
from sslcourse.device import generator
from sslcourse.errors import CourseError, Damaged
from sslcourse.pretext import image_text
from sslcourse.transfer import language, language_file

TASKS = list(pretext.tasks(captioned=True))


def pictures(n=8, side=16):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator(0))


def build(name="clip", **options):
    return pretext.build(name, backbones.build("resnet-tiny", image_size=16, seed=1), **options)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


# --- words -------------------------------------------------------------------------------------------------------


def test_every_caption_of_the_world_can_be_read_and_said_again():
    for mode, domain in (("objects", "photo"), ("scenes", "night"), ("crowd", "photo"), ("crowd", "sketch")):
        sentences = world.draw("val", 40, mode=mode, domain=domain).captions
        again = words.decode(words.encode(sentences))
        assert again == [re.sub(r"\ban\b", "a", sentence.replace(",", "")) for sentence in sentences]


def test_a_word_has_one_number_and_zero_is_none():
    assert len(set(words.WORDS)) == len(words.WORDS) and words.WORDS[0] == ""
    tokens = words.encode(["An orange boat.", "a boat"], 5)
    assert tokens.tolist() == [[words.NUMBER[w] for w in ("a", "orange", "boat")] + [0, 0],
                               [words.NUMBER[w] for w in ("a", "boat")] + [0, 0, 0]]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("a red bot", "no word 'bot' (did you mean 'boat'?)"),
        ("a red zeppelin", "no word 'zeppelin'"),
        ("a " * 27, "at most 26 words"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(sentence, said):
    with pytest.raises(CourseError, match=re.escape(said)) as error:
        words.encode([sentence])
    assert "\n" not in str(error.value)


def test_several_captions_lie_side_by_side_and_fewer_are_said_again():
    tokens = words.encode_several([("a boat", "a car", "a tree"), "a house"], 4)
    assert tokens.shape == (2, 3, 4)
    assert words.decode(tokens[0]) == ["a boat", "a car", "a tree"] and words.decode(tokens[1]) == ["a house"] * 3


@pytest.mark.parametrize(
    ("sentence", "colours", "places"),
    [
        ("a red boat left of a blue car in dim light", "a blue boat left of a red car in dim light",
         "a blue car left of a red boat in dim light"),
        ("a red boat beside a blue car", "a blue boat beside a red car", "a blue boat beside a red car"),
        ("a boat above a car", "a boat above a car", "a car above a boat"),
        ("a red boat and a car", "a red boat and a car", "a red boat and a car"),
        ("in warm light a boat in red right of a pink tree on a plain background",
         "in warm light a boat in pink right of a red tree on a plain background",
         "in warm light a tree in pink right of a red boat on a plain background"),
        ("a picture of a boat", "a picture of a boat", "a picture of a boat"),
    ],
)  # fmt: skip
def test_two_words_of_a_kind_change_places(sentence, colours, places):
    tokens = words.encode([sentence, "a photo of a green tree beside a pink car"])  # rows don't mix
    assert words.decode(image_text.with_colours_exchanged(tokens))[0] == colours
    assert words.decode(image_text.with_places_exchanged(tokens))[0] == places


# --- captions ----------------------------------------------------------------------------------------------------


def truths(sentence, chosen):
    """What a sentence says that isn't so: a second reading of it, from its words alone."""
    false = []
    found = re.findall(
        rf"an? (?:({'|'.join(COLOUR_NAMES)}) )?({'|'.join(world.CLASSES)})(?: in ({'|'.join(COLOUR_NAMES)}))?\b",
        sentence,
    )
    assert found, sentence
    candidates = []
    for before, name, after in found:
        colour = before or after
        fits = [t for t in chosen.things if world.CLASSES[t.label] == name and colour in ("", COLOUR_NAMES[t.colour])]
        false += [] if fits else [f"{colour} {name}"]
        candidates.append(fits)
    for relation, true in (
        ("left of", lambda a, b: a.x < b.x), ("right of", lambda a, b: a.x > b.x),
        ("above", lambda a, b: a.y < b.y), ("below", lambda a, b: a.y > b.y),
    ):  # fmt: skip
        if relation in sentence and not any(true(a, b) for a in candidates[0] for b in candidates[1]):
            false.append(relation)
    backdrop, light = BACKDROPS[chosen.background], LIGHTS[False, "photo"][chosen.lighting]
    false += [name for name in BACKDROPS if re.search(rf"\b{name}\b", sentence) and name != backdrop]
    false += [name for name in LIGHTS[False, "photo"] if name in sentence and name != light]
    return false


@pytest.mark.parametrize("mode", ["objects", "crowd"])
def test_captions_are_true_differ_and_name_all_that_they_may(mode):
    s = world_captions.captioned("val", 60, mode=mode)
    for i, several in enumerate(s.captions):
        assert len(several) == world_captions.EACH
        for sentence in several:
            assert truths(sentence, plan(mode, "val", 0, i)) == [], sentence
    flat = [sentence for several in s.captions for sentence in several]
    assert len(set(flat)) > 0.8 * len(flat)
    said = " ".join(flat)
    assert all(
        word in said
        for word in (
            "photo of",
            "there is",
            "background",
            "light",
            "in red",
            *(("left of", "above") if mode == "crowd" else ()),
        )
    )
    again = world_captions.captioned("val", 20, mode=mode)
    assert again.captions == s.captions[:20]
    assert truths("a purple windmill", plan("objects", "val", 0, 0)) == [
        "purple windmill"
    ]  # the second reading can fail


@pytest.mark.parametrize("what", ["colours", "places"])
def test_a_swapped_caption_has_the_same_words_and_is_false(what):
    found = world_captions.swapped(what, "val", 150)
    assert len(found.images) == len(found.right) == len(found.wrong) > 20
    of = {image.numpy().tobytes(): i for i, image in enumerate(world.draw("val", 150, mode="crowd").images)}
    for image, right, wrong in zip(found.images, found.right, found.wrong, strict=True):
        chosen = plan("crowd", "val", 0, of[image.numpy().tobytes()])
        assert truths(right, chosen) == [] and truths(wrong, chosen) != []
        a, b = (sorted(words.encode([sentence])[0].tolist()) for sentence in (right, wrong))
        assert a == b and right != wrong


def test_what_captions_refuse():
    with pytest.raises(CourseError, match="objects and of crowds"):
        world_captions.captioned("val", 2, mode="scenes")
    with pytest.raises(CourseError, match="colours or in their places"):
        world_captions.swapped("words")
    for wrong in ((("a boat",), ()), ((1,), (2,)), (("a boat",),)):
        with pytest.raises(CourseError, match="captions"):
            ImageSet(pictures(2), captions=wrong)


def test_several_captions_stay_with_their_pictures():
    s = ImageSet(pictures(3), captions=[["a boat", "a red boat"], ["a car"], ["a tree"]])
    assert s.select([2, 0]).captions == (("a tree",), ("a boat", "a red boat"))
    assert "such as 'a boat'" in s.describe() and s.without_labels().captions is None


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_word_is_written_at_the_lower_edge_and_nowhere_else():
    images = torch.full((3, 3, 32, 32), 100, dtype=torch.uint8)
    written = writing.write(images, ["tree", "", "mushroom"])
    assert torch.equal(written[1], images[1]) and torch.equal(written[:, :, :25], images[:, :, :25])
    assert (written[0] != 100).any(0).sum() == 7 * 16 and (written[2] != 100).any(0).sum() == 7 * 32
    ink = [row for row in (writing.stamp("t")[0] < 100).tolist()]
    assert ["".join(".#"[dot] for dot in row) for row in ink] == [
        "....", ".###", "..#.", "..#.", "..#.", "..#.", "....",
    ]  # fmt: skip
    stamps = [writing.stamp(letter).numpy().tobytes() for letter in writing.LETTERS]
    assert len(set(stamps)) == 27  # a to z, and the space
    blank = writing.write(images[:1], ["    "])[0]  # as wide as "tree", and no ink
    assert torch.equal((blank != 100).any(0), (written[0] != 100).any(0))
    assert set(blank.unique().tolist()) == {100, *writing.PAPER}
    for wrong, said in ((["Tree"], "letters a to z"), (["strawberries"], "48 pixels wide"), ([], "0 words")):
        with pytest.raises(CourseError, match=said):
            writing.write(images[:1], wrong)


# --- losses ------------------------------------------------------------------------------------------------------


def cosines(a, b):
    return functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T


@pytest.mark.parametrize("hard", [False, True])
def test_clip_equals_a_loop_over_pairs(hard):
    images, texts, doubles = normal(5, 7), normal(5, 7, seed=1), normal(5, 7, seed=2)
    counts = torch.tensor([True, False, True, True, False])
    s, w = cosines(images, texts), cosines(images, doubles)
    total = 0.0
    for i in range(5):
        row = [math.exp(3 * s[i, j]) for j in range(5)]
        row += [math.exp(3 * w[i, j]) for j in range(5) if hard and counts[j]]
        column = [math.exp(3 * s[j, i]) for j in range(5)]
        total -= math.log(math.exp(3 * s[i, i]) / sum(row)) + math.log(math.exp(3 * s[i, i]) / sum(column))
    found = losses.clip(images, 2 * texts, 3.0, (doubles, counts) if hard else None)
    assert math.isclose(found, total / 10, rel_tol=1e-5)


@pytest.mark.parametrize("hard", [False, True])
def test_siglip_equals_a_loop_over_pairs(hard):
    images, texts, doubles = normal(5, 7), normal(5, 7, seed=1), normal(5, 7, seed=2)
    counts = torch.tensor([True, False, True, True, False])
    s, w = cosines(images, texts), cosines(images, doubles)
    total = sum(math.log1p(math.exp(-(1 if i == j else -1) * (3 * s[i, j] - 2))) for i in range(5) for j in range(5))
    if hard:
        total += sum(math.log1p(math.exp(3 * w[i, j] - 2)) for i in range(5) for j in range(5) if counts[j])
    found = losses.siglip(images, texts, 3.0, -2.0, (doubles, counts) if hard else None)
    assert math.isclose(found, total / 5, rel_tol=1e-5)


def test_first_losses_are_those_on_paper():
    same = torch.ones(6, 4)
    assert math.isclose(losses.clip(same, same, 14.0), math.log(6), rel_tol=1e-6)
    across = torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(6, 4)
    crossed = losses.siglip(same, across, 10.0, -10.0)
    assert math.isclose(crossed, math.log1p(math.exp(10)) + 5 * math.log1p(math.exp(-10)), rel_tol=1e-5)


def test_both_losses_are_those_of_transformers():
    clip = pytest.importorskip("transformers.models.clip.modeling_clip")
    siglip = pytest.importorskip("transformers.models.siglip")
    images, texts = normal(6, 8), normal(6, 8, seed=1)
    theirs = clip.image_text_contrastive_loss(5 * cosines(texts, images))
    torch.testing.assert_close(losses.clip(images, texts, 5.0), theirs)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = siglip.SiglipConfig(
        text_config=small | {"vocab_size": 12, "max_position_embeddings": 4},
        vision_config=small | {"image_size": 8, "patch_size": 4},
    )
    model = siglip.SiglipModel(config).eval()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10)
        found = model(
            input_ids=torch.randint(12, (6, 4), generator=generator(0)),
            pixel_values=normal(6, 3, 8, 8),
            return_loss=True,
        )
    torch.testing.assert_close(losses.siglip(found.image_embeds, found.text_embeds, 10.0, -10.0), found.loss)


# --- both towers -------------------------------------------------------------------------------------------------


def test_the_text_transformer_reads_order_and_looks_words_up():
    network = text.TextTransformer(9, 5, width=8, depth=1, heads=2).eval()
    a, b = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[3, 2, 1, 0, 0]])
    assert network(torch.cat([a, b])).shape == (2, 8)
    assert (network(a) - network(b)).abs().max() > 1e-4
    looked_up = torch.cat([network.reader, functional.embedding(a, network.words)], dim=1) + network.positions
    torch.testing.assert_close(network(a), network.norm(network.blocks[0](looked_up))[:, 0])
    with pytest.raises(CourseError, match="3 heads don't divide 50"):
        build(heads=3, width=50)


@pytest.mark.parametrize("name", TASKS)
def test_a_view_comes_with_one_of_the_captions_of_its_picture(name):
    images = ImageSet(pictures(60), captions=told(60))
    task = build(name, swapped=True, crop=1.0, jitter=0.0)
    seen, said, doubles = task.views(images.images, generator(0), *task.beside(images))
    assert seen.shape == (60, 3, 16, 16) and 0 <= seen.min() and seen.max() <= 1
    near = (seen - images.images / 255).abs().mean((1, 2, 3)) < (seen - images.images.flip(-1) / 255).abs().mean(
        (1, 2, 3)
    )
    assert near.all()  # not mirrored: "left of" would turn false
    read = [words.decode(words.encode(several)) for several in told(60)]
    which = [several.index(sentence) for several, sentence in zip(read, words.decode(said), strict=True)]
    assert 15 < sum(which) < 45  # both are drawn
    colours = words.decode(image_text.with_colours_exchanged(said))
    places = words.decode(image_text.with_places_exchanged(said))
    found = words.decode(doubles)
    assert all(double in pair for double, *pair in zip(found, colours, places, strict=True))
    assert found != colours and found != places
    assert len(build(name).views(images.images, generator(0), *task.beside(images))) == 2


@pytest.mark.parametrize("name", TASKS)
def test_a_double_that_says_the_same_is_no_negative(name):
    task = build(name, swapped=True).eval()
    if name == "siglip":
        task.bias.data.zero_()  # at -10 every no is believed already
    seen = pictures(3) / 255
    said = words.encode(["a red boat", "a car", "a green tree in dim light"])
    plain, _ = task(seen, said)
    torch.testing.assert_close(task(seen, said, said)[0], plain)
    double = image_text.with_colours_exchanged(words.encode(["a red boat beside a blue car"] * 3))
    assert task(seen, said, double)[0] > plain + 1e-4


@pytest.mark.parametrize("name", TASKS)
def test_pictures_without_captions_are_one_sentence(name):
    for images in (pictures(), ImageSet(pictures(), name="mine")):
        with pytest.raises(CourseError, match=f"{name} learns from captions.* none; give an ImageSet with captions"):
            train.pretrain(build(name), images, train.TrainConfig(batch_size=4), progress=False)


def test_the_scale_is_learned_and_stops_at_a_hundred():
    task = build()
    assert math.isclose(task.log_scale.detach().exp(), 1 / 0.07, rel_tol=1e-5) and task.log_scale.requires_grad
    task.log_scale.data.fill_(9.0)
    task.after_step(0.5)
    assert math.isclose(task.log_scale.detach().exp(), 100, rel_tol=1e-5)
    assert (
        math.isclose(build("siglip").log_scale.detach().exp(), 10, rel_tol=1e-5) and build("siglip").bias.item() == -10
    )


def test_a_run_knows_its_captions(tmp_path):
    config = train.TrainConfig(steps=2, batch_size=4, checkpoint_every=1)
    images = ImageSet(pictures(), captions=told(8))
    train.pretrain(build(), images, config, out=tmp_path, device="cpu", progress=False)
    other = dataclasses.replace(images, captions=images.captions[::-1])
    with pytest.raises(CourseError, match="beside the images"):
        train.pretrain(build(), other, config, out=tmp_path, resume=True, device="cpu", progress=False)


# --- without a label ---------------------------------------------------------------------------------------------


class Known(image_text.ImageText):
    """Two towers that know: a picture's direction is that of its first pixel's number, a sentence's that of its last word."""

    def __init__(self):
        super().__init__(backbones.build("resnet-tiny", image_size=16), dim=len(words.WORDS))

    def of_images(self, images):
        return functional.one_hot((images[:, 0, 0, 0] * 255).round().long(), len(words.WORDS)).float()

    def of_texts(self, tokens):
        last = tokens.gather(1, (tokens > 0).sum(1, keepdim=True) - 1)[:, 0]
        return functional.one_hot(last, len(words.WORDS)).float()


def of_words(*chosen):
    images = torch.zeros(len(chosen), 3, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([words.NUMBER[word] for word in chosen])
    return images


def test_the_nearest_name_is_the_class_and_prompts_are_averaged():
    task = Known().train()
    images = ImageSet(of_words("boat", "car", "car", "sky"), [0, 1, 0, 1], ("boat", "car"))
    assert language.zero_shot(task, images, ["a {}", "a photo of a {}"]) == 0.5
    head = language.class_directions(task, ("boat", "car"), ["a {}", "a {} in daylight"])
    expected = functional.one_hot(torch.tensor([words.NUMBER[w] for w in ("boat", "car")]), len(words.WORDS)).float()
    expected[:, words.NUMBER["daylight"]] = 1
    torch.testing.assert_close(head, functional.normalize(expected, dim=1))
    assert task.training
    for wrong in ("a {}", [], ["a boat"]):
        with pytest.raises(CourseError, match="a prompt is a sentence"):
            language.class_directions(task, ("boat",), wrong)


def test_recall_counts_who_stands_before():
    queries, gallery = torch.eye(4), torch.eye(4)[[0, 2, 1, 3]]
    assert language.recall(queries, gallery, 1) == 0.5
    assert language.recall(queries, gallery, 4) == 1.0
    assert language.recall(torch.ones(10, 2), torch.ones(10, 2), 5) == 1.0  # 4.5 places before each, by a draw
    assert language.recall(torch.ones(10, 2), torch.ones(10, 2), 4) == 0.0
    with pytest.raises(CourseError, match="recall pairs rows"):
        language.recall(torch.eye(3), torch.eye(4))


def test_the_nearer_of_two_sentences_is_preferred():
    found = language.preferred(Known(), of_words("boat", "car"), ["a boat", "a boat"], ["a car", "a car"])
    assert found.tolist() == [True, False]


def test_blind_every_image_prefers_what_most_would():
    images, right, wrong = of_words("boat", "boat", "car"), ["a boat", "a boat", "a car"], ["a car", "a car", "a boat"]
    assert language.preferred(Known(), images, right, wrong).tolist() == [True, True, True]
    assert language.preferred(Known(), images, right, wrong, blind=True).tolist() == [True, True, False]


def test_both_towers_in_one_file_and_back(tmp_path):
    task = build("siglip", dim=8, width=16, depth=1)
    language_file.save(task, tmp_path / "it", image_size=16, steps=3)
    again, record = language_file.load(tmp_path / "it")
    assert record == {"steps": 3} and again.options() == task.options() and not again.training
    images, sentences = pictures(), ["a red boat", "a blue car"]
    for of, given in ((language.of_images, images), (language.of_texts, sentences)):
        torch.testing.assert_close(of(again, given), of(task, given), atol=5e-3, rtol=0)
    assert (tmp_path / "it").stat().st_size < 1_100_000
    backbones.save(task.backbone, tmp_path / "backbone.safetensors")
    for wrong in ("backbone.safetensors", "nothing"):
        with pytest.raises(CourseError, match="no network of images and texts|can't be read"):
            language_file.load(tmp_path / wrong)


def test_the_gallery_has_names_written_on_a_share_of_single_things():
    s = world_captions.gallery("val", 40, written=0.5)
    plain = world_captions.gallery("val", 40, written=0.0)
    changed = (s.images != plain.images).flatten(1).any(1)
    assert len(s) == len(s.captions) == 80 and s.labels is None
    assert 10 < changed[:40].sum() < 30 and not changed[40:].any()
    labels = world.draw("val", 40).labels
    for i in changed.nonzero()[:5, 0].tolist():
        assert torch.equal(s.images[i], writing.write(plain.images[[i]], [world.CLASSES[labels[i]]])[0])


def test_the_command_takes_the_captioned_split(call, monkeypatch, tmp_path):
    from sslcourse.cli import pretraining
    from sslcourse.data.splits import Splits

    few = world.draw("train", 12, mode="crowd")
    parts = Splits(few.without_labels(), few, few, few, "crowds")
    monkeypatch.setattr(pretraining, "_splits", lambda *_: parts)
    code, out, err = call("pretrain", "clip", "--data", "world:crowd", "--steps", 2, "--batch-size", 4, "--out", "run")
    assert code == 0 and (tmp_path / "run" / "backbone.safetensors").is_file(), err
    monkeypatch.setattr(pretraining, "_splits", lambda *_: Splits(*[few.without_labels()] * 4, "bare"))
    code, _, err = call(
        "pretrain", "siglip", "--data", "world:crowd", "--steps", 2, "--batch-size", 4, "--out", "other"
    )
    assert code == 2 and "siglip learns from captions" in err


def test_the_network_in_the_package_is_what_its_record_says():
    task, record = language_file.bundled()
    found = language.zero_shot(task, world.split("test", 400))
    assert found == pytest.approx(record["measured"]["zero-shot"], abs=0.03)  # 2,000 pictures there
    assert record["steps"] == 5000 and record["command"].startswith("python benchmarks/captions.py")


def test_what_comes_with_the_package_is_what_its_record_says(tmp_path, monkeypatch):
    monkeypatch.setattr(language_file, "FOLDER", tmp_path)
    path = language_file.put(build(dim=8, width=16, depth=1), {"steps": 3})
    task, record = language_file.bundled()
    assert task.name == "clip" and record["steps"] == 3 and len(record["sha256"]) == 64
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Damaged, match="isn't the file that its record describes"):
        language_file.bundled()
