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
from sslcourse.control.play import companions, followers, random_play
from sslcourse.errors import CourseError

# --- the environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rooms": 3, "render_mode": "rgb_array"}, {"screen": False}])
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


@pytest.mark.parametrize("kind", range(len(drawing.WISHES)))
def test_reward_is_for_the_thing_asked_for_alone(kind):
    env = Fetch()
    for wish in range(len(drawing.WISHES)):
        env.reset(seed=wish)
        env.wish = wish
        row, column = environment.PLACES[kind]
        beside = next(i for i, (d, r) in enumerate(MOVES) if free(env, row - d, column - r))
        env.hand = (row - MOVES[beside][0], column - MOVES[beside][1])
        assert env.step(beside)[1:4] == (float(kind == wish), True, False)


def free(env, row, column):
    """Whether a cell is one of the room's, and nothing stands in it."""
    return env._is_free(row, column) and (row, column) not in env.lying


def test_every_thing_can_be_reached_from_every_start_in_time():
    env = Fetch()
    for start in environment.STARTS:
        reached, edge = {}, {start}
        for steps in range(1, env.steps + 1):
            edge = {(r + d, c + k) for r, c in edge for d, k in MOVES if env._is_free(r + d, c + k)}
            reached |= {env.lying[cell]: steps for cell in edge if cell in env.lying}
            edge -= set(env.lying)
        assert set(reached) == set(range(len(drawing.WISHES)))


def test_the_edge_and_the_screen_hold_the_hand_and_time_runs_out():
    env = Fetch(steps=5)
    env.reset(seed=0)
    env.hand = (1, 2)
    results = [env.step(2) for _ in range(5)]  # the screen is to the left
    assert env.hand == (1, 2)
    assert [r[2] for r in results] == [False] * 5 and [r[3] for r in results] == [False] * 4 + [True]
    env.reset(seed=0)
    env.hand = (1, 3)
    env.step(3)
    assert env.hand == (1, 3)


def test_walls_let_nobody_pass_beside_the_door():
    env = Fetch(rooms=3)
    env.reset(seed=0)
    for row in range(2, environment.ROWS):
        env.hand = (row, environment.COLUMNS - 1)
        env.step(3)
        assert (env.hand[1] == environment.COLUMNS) == (row == env.doors[0])


def test_the_screen_shows_one_kind_in_an_episode_and_another_picture_of_it_at_every_step():
    seen = played(1, [2, 3, 2, 3], steps=9)[:, :, :16, :16]  # from a start where nothing is reached
    assert len({frame.tobytes() for frame in seen}) > 2
    env = Fetch()
    env.reset(seed=1)
    looks = {drawing.look(env.wish, which).tobytes() for which in range(drawing.LOOKS)}
    assert {frame.tobytes() for frame in seen} <= looks


def test_a_dark_screen_says_nothing():
    seen = np.concatenate([played(seed, [], screen=False) for seed in range(4)])
    assert len({frame[:, :16, :16].tobytes() for frame in seen}) == 1


def test_the_hand_is_seen_where_it_is_and_never_on_the_screen():
    env = Fetch(screen=False)
    env.reset(seed=1)
    for cell in ((1, 2), (2, 1), (2, 3)):
        env.hand = cell
        env.np_random = np.random.default_rng(0)  # the same grass
        there = env._look().astype(int)
        env.hand = (2, 2)
        env.np_random = np.random.default_rng(0)
        rows, columns = np.nonzero((there != env._look()).any(axis=0))
        found = {(int(r) // 8, int(c) // 8) for r, c in zip(rows, columns, strict=True)}
        assert found == {cell, (2, 2)}


def test_grass_hides_the_lower_half_and_not_all(monkeypatch):
    env, cells = Fetch(screen=False), []
    env.reset(seed=2)
    for chance in (0.0, 1.0):
        monkeypatch.setattr(environment, "HIDDEN", chance)
        cells.append(env._look()[:, 16:24, :8].astype(int))  # the house
    differs = (cells[0] != cells[1]).any(axis=0).mean(axis=1)  # share of each line
    assert differs[5:].mean() > 0.7 and differs[:3].mean() < 0.2


@pytest.mark.parametrize("wrong", [{"rooms": 0}, {"steps": 1.5}, {"render_mode": "human"}])
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
    rows, columns, env = play.factors["row"], play.factors["column"], Fetch()
    for i in range(len(play)):
        down, right = MOVES[action[i]]
        a, b = first[i], second[i]
        came = int(rows[a]) + down, int(columns[a]) + right
        assert (int(rows[b]), int(columns[b])) == (came if env._is_free(*came) else (int(rows[a]), int(columns[a])))
        assert play.factors["wish"][a] == play.factors["wish"][b]
    assert int(play.factors["last"][-1]) == 1


def test_companions_are_other_frames_of_the_same_episode(play):
    last = play.factors["last"]
    episode = (last.cumsum(0) - last).tolist()
    found = companions(play)  # (N, 2)
    for i, others in enumerate(found.tolist()):
        length = episode.count(episode[i])
        assert all(episode[j] == episode[i] for j in others)
        assert (i not in others) == (length > 2) and set(others) == set(
            (np.arange(1, 3) + i - episode.index(episode[i])) % length + episode.index(episode[i])
        )


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


def test_of_stage_0_the_pixels_are_whitened(play):
    space, frames = Fetch().observation_space, augment.to_float(play.images)
    found = [extractor.BackboneFeatures(space, backbones.build(seed=s), play.images, 0, 8)(frames) for s in (0, 1)]
    torch.testing.assert_close(found[0], found[1])  # no network takes part
    centred = frames.flatten(1) - frames.flatten(1).mean(dim=0)
    kept = torch.linalg.lstsq(found[0], centred).solution
    best = torch.linalg.svdvals(centred).square()
    torch.testing.assert_close((centred - found[0] @ kept).square().sum(), best[8:].sum(), rtol=1e-2, atol=1e-2)


def test_a_curve_is_one_training(play):
    found, wrap = learning.agent(backbones.build(), play.images, frozen=True)
    points = learning.curve(found, wrap, 160, pieces=2, episodes=50)
    assert [n for n, _ in points] == [0, 80, 160]
    assert found.exploration_rate == pytest.approx(found.exploration_final_eps)  # it fell over all frames, once


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


CORRIDOR = {"rooms": 2, "steps": 30, "screen": False}


def curious(play, **options):
    venv = learning.environments(1, **CORRIDOR)
    found = extractor.BackboneFeatures(venv.observation_space, backbones.build(), play.images)
    recipe = curiosity.CURIOUS | {"learning_starts": 8, "batch_size": 8} | options
    return curiosity.Curious(
        "MlpPolicy",
        extractor.Frozen(venv, found),
        replay_buffer_class=curiosity.Surprising,
        seed=0,
        device="cpu",
        **recipe,
    )


def test_the_replay_rewards_what_isnt_foreseen_now(play):
    agent = curious(play, gradient_steps=0).learn(40)
    replay = agent.replay_buffer
    batch = replay._get_samples(np.arange(6))
    with torch.no_grad():
        expected = agent.model.surprise(batch.observations, batch.actions[:, 0], batch.next_observations)
    torch.testing.assert_close(batch.rewards[:, 0], expected / expected.mean() - 1)
    for parameter in agent.model.parameters():
        torch.nn.init.zeros_(parameter)
    replay.mean = 1.0
    again = replay._get_samples(np.arange(6)).rewards[:, 0]
    change = (batch.next_observations - batch.observations).square().mean(dim=1) / 2
    torch.testing.assert_close(again, change / replay.mean - 1)


def test_the_explorer_draws_what_it_does_by_its_worth(play):
    agent = curious(play)
    seen = np.repeat(agent.env.reset(), 4000, axis=0)
    with torch.no_grad():
        worth = agent.q_net(torch.from_numpy(seen[:1]))[0]
    expected = ((worth - worth.mean()) / worth.std()).softmax(dim=0)
    drawn, _ = agent.predict(seen)
    torch.testing.assert_close(torch.from_numpy(drawn).bincount(minlength=4) / 4000, expected, atol=0.04, rtol=0)
    best, _ = agent.predict(seen[:1], deterministic=True)
    assert best[0] == worth.argmax()


def test_the_explorers_model_learns_from_its_replay(play):
    agent = curious(play, gradient_steps=40)
    untaught = [p.clone() for p in agent.model.parameters()]
    agent.learn(60)
    batch = agent.replay_buffer.sample(30)
    taught = agent.model.surprise(batch.observations, batch.actions[:, 0], batch.next_observations).mean().item()
    for parameter, before in zip(agent.model.parameters(), untaught, strict=True):
        parameter.data.copy_(before)
    first = agent.model.surprise(batch.observations, batch.actions[:, 0], batch.next_observations).mean().item()
    assert taught < 0.7 * first


def test_random_play_seldom_fetches():
    assert 0.08 < learning.mean_return(None, lambda venv: venv, episodes=200) < 0.2


def test_cells_are_counted_once():
    counts = curiosity.explore(None, None, 240, **CORRIDOR)
    assert len(counts) == 30 and counts == sorted(counts) and 4 < counts[-1] <= 24
    assert counts == curiosity.explore(None, None, 240, **CORRIDOR)
    assert counts != curiosity.explore(None, None, 240, seed=1, **CORRIDOR)


# --- what is measured --------------------------------------------------------------------------------------------


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """`benchmarks/control.py`, with runs of a few frames."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "control.py"
    spec = importlib.util.spec_from_file_location("benchmarks_control", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FRAMES", 90)
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
    assert curves.along(found, "from scratch")[0][0] == 0 and curves.along(found, "from scratch")[0][-1] >= 90
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


def test_ways_are_compared_over_the_seeds_that_both_have():
    runs = {"a": {"0": {"returns": [0.1, 0.6]}, "1": {"returns": [0.9]}}, "b": {"0": {"returns": [0.3]}}, "c": {}}
    assert curves.ratio({"runs": runs}, "a", "b") == pytest.approx(2)
    with pytest.raises(CourseError, match="a and c share no seed"):
        curves.ratio({"runs": runs}, "a", "c")
