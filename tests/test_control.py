"""Control from pixels: the hand's world, its pretext tasks, the backbone as an extractor, curiosity and CURL's loss."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra rl is not installed")
pytest.importorskip("stable_baselines3", reason="the extra rl is not installed")

import gymnasium
from gymnasium.utils.env_checker import check_env

from sslcourse import augment, backbones, train
from sslcourse.control import curiosity, curves, drawing, environment, extractor, learning, pretraining
from sslcourse.control.environment import MOVES, Fetch
from sslcourse.control.play import followers, random_play
from sslcourse.errors import CourseError

# --- the environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rooms": 3, "render_mode": "rgb_array"}, {"things": 1}])
def test_gymnasium_finds_nothing_wrong(options):
    check_env(gymnasium.make("sslcourse/Fetch-v0", **options).unwrapped, skip_render_check="render_mode" not in options)


def played(seed, actions, **options):
    env = Fetch(**options)
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        seen.append(env.step(action)[0])
    return np.stack(seen)


def test_the_seed_alone_decides_what_is_seen():
    assert np.array_equal(played(3, [0, 3, 1]), played(3, [0, 3, 1]))
    assert not np.array_equal(played(3, []), played(4, []))


def walk(env, place):
    """The actions from where the hand is to a place, columns last."""
    (row, column), (down, right) = env.hand, place
    return [1 if down > row else 0] * abs(down - row) + [3 if right > column else 2] * abs(right - column)


@pytest.mark.parametrize("seed", range(6))
def test_reward_is_for_the_right_thing_alone(seed):
    for thing in range(3):
        env = Fetch()
        env.reset(seed=seed)
        place, kind = list(env.lying.items())[thing]
        *before, last = [env.step(action)[1:4] for action in walk(env, place)]
        assert all(step == (0.0, False, False) for step in before)
        assert last == (float(kind == env.wish), True, False)


def test_exactly_one_thing_is_asked_for():
    env = Fetch()
    for seed in range(20):
        env.reset(seed=seed)
        assert list(env.lying.values()).count(env.wish) == 1 and len(set(env.lying.values())) == 3


def test_the_edge_holds_the_hand_and_time_runs_out():
    env = Fetch(steps=5)
    env.reset(seed=0)
    env.hand = (1, 0)
    results = [env.step(2) for _ in range(5)]
    assert env.hand == (1, 0)
    assert [r[2] for r in results] == [False] * 5 and [r[3] for r in results] == [False] * 4 + [True]


def test_walls_let_nobody_pass_beside_the_door():
    env = Fetch(rooms=3)
    env.reset(seed=0)
    for row in range(environment.ROWS):
        env.hand = (row, environment.COLUMNS - 1)
        env.step(3)
        assert (env.hand[1] == environment.COLUMNS) == (row == env.doors[0])


def test_the_wish_is_seen_at_the_upper_left_and_the_hand_where_it_is():
    env = Fetch(things=1)
    seen, _ = env.reset(seed=1)
    other = Fetch(things=1)
    other.reset(seed=1)
    other.wish = (env.wish + 1) % len(drawing.WISHES)
    other._backs.clear()
    changed = (seen != other._seen()).any(axis=0)
    assert changed[:8, :8].any() and not changed[:, 8:].any() and not changed[8:].any()
    moved = env.step(0 if env.hand[0] else 1)[0]
    rows = np.flatnonzero((seen != moved).any(axis=(0, 2)))
    assert rows.min() >= 8


def test_grass_hides_the_lower_half_and_not_all():
    env = Fetch()
    env.reset(seed=2)
    (row, column), _ = next(iter(env.lying.items()))
    top, left = 8 * (row + 1), 8 * column

    def cell(hidden):
        env.hidden = hidden
        return env._drawn(0)[:, top : top + 8, left : left + 8].astype(int)

    differs = (cell({(row, column)}) != cell(set())).any(axis=0).mean(axis=1)  # share of each line
    assert differs[5:].mean() > 0.7 and differs[:3].mean() < 0.2


@pytest.mark.parametrize(
    "wrong", [{"things": 0}, {"things": 9}, {"rooms": 0}, {"steps": 1.5}, {"render_mode": "human"}]
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(CourseError, match=next(iter(wrong))):
        Fetch(**wrong)


def test_without_the_extra_one_sentence_says_what_to_install():
    code = "import sys; sys.modules['gymnasium'] = None\nimport importlib.util as u\nfind = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name == 'gymnasium' else find(name, *a)\nimport sslcourse.control"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "CourseError: sslcourse.control needs gymnasium, which the extra rl installs" in done.stderr


# --- random play and what is learned from it ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def play():
    return random_play(Fetch(), 80, seed=5)


def test_play_is_what_the_environment_shows_and_does(play):
    first, second, action = followers(play)
    rows, columns = play.factors["row"], play.factors["column"]
    for i in range(len(play)):
        down, right = MOVES[action[i]]
        a, b = first[i], second[i]
        assert rows[b] == min(max(rows[a] + down, 0), environment.ROWS - 1)
        assert columns[b] == min(max(columns[a] + right, 0), environment.COLUMNS - 1)
        assert play.factors["wish"][a] == play.factors["wish"][b]
    assert int(play.factors["last"][-1]) == 1


def test_images_without_an_order_are_refused(play):
    task = pretraining.TemporalContrast(backbones.build())
    with pytest.raises(CourseError, match="learns from frames in order"):
        task.beside(play.images)


@pytest.mark.parametrize("kind", [pretraining.TemporalContrast, pretraining.InverseDynamics])
def test_tasks_of_play_run_through_the_courses_loop(kind, play):
    task = kind(backbones.build())
    history = train.pretrain(task, play, train.TrainConfig(steps=2, batch_size=8), progress=False)
    assert math.isfinite(history.last["loss"])


def test_the_first_inverse_loss_is_log_four(play):
    task = pretraining.InverseDynamics(backbones.build())
    loss, _ = task(*task.views(play.images, torch.Generator().manual_seed(0), *task.beside(play)))
    assert math.isclose(loss.item(), math.log(4), rel_tol=1e-5)


def test_inverse_dynamics_looks_at_both_frames(play):
    task = pretraining.InverseDynamics(backbones.build())
    torch.nn.init.normal_(task.head[-1].weight, generator=torch.Generator().manual_seed(0))  # it begins at zero
    first, second, action = task.views(play.images, torch.Generator().manual_seed(0), *task.beside(play))
    first.requires_grad_(), second.requires_grad_()
    task(first, second, action)[0].backward()
    assert first.grad.abs().sum() > 0 and second.grad.abs().sum() > 0


# --- the backbone as an extractor --------------------------------------------------------------------------------


def test_the_extractor_is_the_backbone_whitened(play):
    space, backbone = Fetch().observation_space, backbones.build(seed=1)
    found = extractor.BackboneFeatures(space, backbone, play.images, dim=16)
    frames = augment.to_float(play.images)
    features = found(frames)  # (80, 16)
    centred = found.backbone.stages(frames)[2].flatten(1)
    centred = centred - centred.mean(dim=0)
    assert found.features_dim == 16
    torch.testing.assert_close(features.T @ features / len(features), torch.eye(16), atol=1e-2, rtol=0)
    kept = torch.linalg.lstsq(features.detach(), centred.detach()).solution  # what 16 directions say of all
    best = torch.linalg.svdvals(centred.detach()).square()
    left = (centred - features @ kept).square().sum()
    torch.testing.assert_close(left, best[16:].sum(), rtol=1e-2, atol=1e-2)
    found.train()
    torch.testing.assert_close(found(frames[:3]), features[:3], atol=1e-3, rtol=1e-3)  # alone or in a batch


def test_frozen_environments_give_the_extractors_features(play):
    inner, again = learning.environments(2), learning.environments(2)
    found = extractor.BackboneFeatures(inner.observation_space, backbones.build(), play.images)
    frozen = extractor.Frozen(inner, found)
    frozen.seed(3), again.seed(3)
    with torch.no_grad():
        expected = found(augment.to_float(torch.from_numpy(again.reset())))
    np.testing.assert_allclose(frozen.reset(), expected.numpy(), atol=1e-5)


def test_two_agents_on_one_backbone_leave_it_as_it_was(play):
    backbone = backbones.build()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    found, _ = learning.agent(backbone, play.images, frozen=False, contrast=True)
    found.learning_starts = 8
    found.learn(40)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    online, target = (net.features_extractor.backbone.trunk.conv1.weight for net in (found.q_net, found.q_net_target))
    assert online is not target and not torch.equal(online, before["trunk.conv1.weight"])


@pytest.mark.parametrize("frozen", [True, False])
def test_an_episode_is_played_by_the_best_values_of_what_is_seen(frozen, play):
    found, wrap = learning.agent(backbones.build(), play.images, frozen=frozen)
    episode = learning.episode(found, wrap, seed=4)
    seen = wrap(learning.environments(1))
    seen.seed(4)
    chosen, _ = found.predict(seen.reset(), deterministic=True)
    assert episode.done[0] == chosen[0] and len(episode.frames) - 1 == len(episode.values) == len(episode.done)
    env = Fetch()
    env.reset(seed=4)
    for action, frame in zip(episode.done, episode.frames[1:], strict=True):
        frame_again, reward, *_ = env.step(action)
        assert np.array_equal(frame_again, frame)
    assert episode.gained == reward


# --- CURL and curiosity ------------------------------------------------------------------------------------------


def test_contrast_beside_the_reward_is_cross_entropy_of_the_other_view(play):
    found, _ = learning.agent(backbones.build(), play.images, frozen=False, contrast=True)
    frames = augment.to_float(play.images[:5])
    with torch.no_grad():
        for parameter in found.q_net_target.features_extractor.parameters():
            parameter.mul_(1.1)  # the two begin as one
    found.generator.manual_seed(7)
    loss = found.contrast(frames)
    generator = torch.Generator().manual_seed(7)
    first, second = (augment.random_shift(frames, generator, 2) for _ in range(2))
    q, k = found.q_net.features_extractor(first), found.q_net_target.features_extractor(second)
    total = 0.0
    for i in range(5):
        scores = torch.stack([q[i] @ found.bilinear @ k[j] for j in range(5)])
        total = total + scores.logsumexp(0) - scores[i]
    torch.testing.assert_close(loss, total / 5, atol=1e-4, rtol=1e-4)
    loss.backward()
    assert all(p.grad is None for p in found.q_net_target.parameters())


def test_surprise_by_hand():
    model = curiosity.ForwardModel(3)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # it predicts that nothing changes
    before, after = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0], [3.0, 0.0, 0.0]])
    torch.testing.assert_close(model.surprise(before, torch.tensor([0, 1]), after), torch.tensor([0.0, 1.5]))


def test_surprise_is_about_the_frame_that_came_and_not_the_next_episodes_first(play):
    inner, again = (learning.environments(5, steps=1) for _ in range(2))  # every step ends an episode
    found = extractor.BackboneFeatures(inner.observation_space, backbones.build(), play.images)
    venv = curiosity.Curious(extractor.Frozen(inner, found))
    venv.seed(2), again.seed(2)
    actions = np.array([0, 1, 2, 3, 0])
    again.reset()
    came = np.stack([info["terminal_observation"] for info in again.step(actions)[3]])
    before = torch.from_numpy(venv.reset())
    with torch.no_grad():
        expected = venv.model.surprise(before, torch.from_numpy(actions), torch.from_numpy(venv.venv.features(came)))
    rewards = venv.step(actions)[1]
    np.testing.assert_allclose(rewards, (expected / expected.mean()).numpy(), rtol=1e-3)


def test_what_is_seen_often_stops_being_rewarded():
    venv = curiosity.Curious(
        extractor.Frozen(
            learning.environments(4, things=1, rooms=2, steps=1000),
            extractor.BackboneFeatures(Fetch().observation_space, backbones.build(), random_play(Fetch(), 40).images),
        )
    )
    venv.seed(0)
    venv.reset()
    rewards = np.concatenate([venv.step(np.array([2, 2, 2, 2]))[1] for _ in range(60)])  # against the wall, on and on
    assert rewards[-40:].mean() < 0.3 * rewards[:40].mean()


def test_random_play_fetches_a_third_at_most():
    assert 0.2 < learning.mean_return(None, lambda venv: venv, episodes=200) < 0.36


def test_cells_that_random_play_comes_to_are_counted_once():
    visited = curiosity.cells_visited(None, None, episodes=3, rooms=2, steps=30, things=1)
    assert len(visited) == 3 and all(1 < n <= 24 for n in visited)
    assert visited == curiosity.cells_visited(None, None, episodes=3, rooms=2, steps=30, things=1)
    assert curiosity.cells_visited(None, None, episodes=1, rooms=2, steps=1, things=1)[0] <= 2


# --- what is measured --------------------------------------------------------------------------------------------


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """`benchmarks/control.py`, with runs of a few frames."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "control.py"
    spec = importlib.util.spec_from_file_location("benchmarks_control", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FRAMES", 80)
    monkeypatch.setattr(module, "PLAY", 66)
    monkeypatch.setattr(curves, "STEPS", 1)
    monkeypatch.setattr(learning, "mean_return", lambda *args, **options: 0.25)
    monkeypatch.setattr(sys, "argv", ["control.py", "--seeds", "1", "--out", str(tmp_path / "control.json"), "--ways"])
    return module, tmp_path / "control.json"


def test_curves_count_random_play_and_go_on_where_they_stopped(measuring, monkeypatch):
    module, path = measuring
    sys.argv += ["from scratch", "rotation, frozen", "temporal, frozen"]
    module.main()
    found = curves.stored(path)
    assert curves.along(found, "from scratch")[0][0] == 0 and curves.along(found, "from scratch")[0][-1] >= 80
    assert curves.along(found, "temporal, frozen")[0][0] == 66
    assert curves.at_the_end(found, "rotation, frozen").values == (0.25,)
    monkeypatch.setattr(module, "fetched", lambda way, seed: pytest.fail(f"{way} was measured again"))
    module.main()


def test_a_file_of_another_kind_holds_no_curves(tmp_path):
    (tmp_path / "control.json").write_text(json.dumps({"format": "another"}))
    for path in (tmp_path / "control.json", tmp_path / "none.json"):
        with pytest.raises(CourseError, match="no stored curves"):
            curves.stored(path)
    with pytest.raises(CourseError, match="task 'jigsaw' is unknown"):
        curves.pretrained("jigsaw", None)
