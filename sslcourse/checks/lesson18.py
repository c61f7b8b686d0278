"""Checks of the exercises of lesson 18: returns, the target of Q-learning, surprise, and CURL's contrastive loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks import cases
from sslcourse.checks.framework import Case, Check, Wrong, value_and_gradients, yourself


def returns(rewards: Tensor, gamma: float) -> Tensor:
    """rewards (T,) of one episode; discount gamma -> what each step still brings, (T,): r_t + gamma r_{t+1} + ..."""
    found, later = torch.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        later = rewards[t] + gamma * later
        found[t] = later
    return found


def _episodes(generator: torch.Generator) -> list[Case]:
    return [(cases.normal(generator, n), gamma) for n, gamma in ((5, 0.9), (8, 0.5), (3, 1.0), (7, 0.7))]


def _returns_by_sums(rewards, gamma):
    count = len(rewards)
    return torch.stack([sum(gamma ** (k - t) * rewards[k] for k in range(t, count)) for t in range(count)])


def _returns_by_matrix(rewards, gamma):
    t = torch.arange(len(rewards))
    ahead = t[None] - t[:, None]
    powers = torch.tensor(gamma) ** ahead.clamp(min=0)
    return torch.where(ahead >= 0, powers, 0.0) @ rewards


what_is_still_to_come = Check(
    name="18.1 what is still to come",
    reference=returns, cases=_episodes,
    rights=(_returns_by_sums, _returns_by_matrix),
    wrongs=(
        Wrong("what has been", change=("reversed(range(len(rewards)))", "range(len(rewards))"), hint="""
            You add up what came before a step. A return is what is still to come: begin at the episode's end."""),
        Wrong("own reward discounted", change=("rewards[t] + gamma * later", "gamma * (rewards[t] + later)"), hint="""
            You discount a step's own reward as well. It comes at once, with weight 1; the next one gets gamma."""),
        Wrong("not discounted", change=("gamma * later", "later"), hint="""
            The discount doesn't take part: a reward k steps ahead counts gamma ** k."""),
        Wrong("discounted from the start",
            lambda rewards, gamma: (gamma ** torch.arange(len(rewards)) * rewards).flip(0).cumsum(0).flip(0), """
            You count the steps from the episode's beginning. Seen from step t, its own reward is 0 steps away."""),
        Wrong("the next step alone",
            lambda rewards, gamma: rewards + gamma * torch.cat([rewards[1:], rewards.new_zeros(1)]), """
            You look one step ahead and no further. All later rewards count, each gamma times less."""),
    ),
    hints=(
        "What does the last step still bring? And the one before?",
        "From the end: what a step brings is its reward plus gamma times what the next one brings.",
        "later = rewards[t] + gamma * later, for t in reversed(range(len(rewards)))",
    ),
)


def q_target(rewards: Tensor, over: Tensor, following: Tensor, gamma: float) -> Tensor:
    """rewards (N,); over (N,), 1 at an episode's end; following (N, A), values of the next frames' actions -> (N,)."""
    best = following.max(dim=1).values  # (N,)
    return rewards + gamma * (1 - over) * best


def _transitions(generator: torch.Generator) -> Iterator[Case]:
    for n, actions, gamma in ((6, 4, 0.9), (5, 3, 0.5), (9, 2, 0.8)):
        rewards = cases.normal(generator, n)
        over = torch.zeros_like(rewards)
        over[1::3] = 1
        yield rewards, over, cases.normal(generator, n, actions), gamma


def _target_in_loop(rewards, over, following, gamma):
    found = []
    for reward, ended, values in zip(rewards, over, following, strict=True):
        found.append(reward if ended else reward + gamma * values.max())
    return torch.stack(found)


the_target = Check(
    name="18.2 what a value should be",
    reference=q_target, cases=_transitions,
    rights=(_target_in_loop,
        lambda rewards, over, following, gamma: torch.where(
            over.bool(), rewards, rewards + gamma * following.amax(dim=1))),
    wrongs=(
        Wrong("goes on after the end", change=("gamma * (1 - over) * best", "gamma * best"), hint="""
            After an episode's end nothing comes any more. Where over is 1, the target is the reward alone."""),
        Wrong("only after the end", change=("(1 - over)", "over"), hint="""
            You look ahead where the episode is over, and not where it goes on: 1 - over."""),
        Wrong("mean of the actions", change=("following.max(dim=1).values", "following.mean(dim=1)"), hint="""
            You take the mean over the next frame's actions. Q-learning asks what the best one is worth."""),
        Wrong("best of the batch", change=("following.max(dim=1).values", "following.max()"), hint="""
            You take the largest value of the whole batch. Each row has a best action of its own: dim=1."""),
        Wrong("which instead of how much", change=("following.max(dim=1).values", "following.max(dim=1).indices"),
            hint="You add the best action's number. Its value is asked for: max(dim=1).values."),
        Wrong("not discounted", change=("gamma * (1 - over)", "(1 - over)"), hint="""
            The discount doesn't take part: what comes a step later counts gamma times as much."""),
        Wrong("reward kept back at the end",
            change=("rewards + gamma * (1 - over) * best", "(1 - over) * (rewards + gamma * best)"), hint="""
            Where the episode ends you drop the reward as well. It is there that an episode's only reward comes."""),
    ),
    hints=(
        "What will an action have brought, if from the next frame on the best is done?",
        "The reward, plus gamma times the best value of the next frame; and nothing of the latter where there is none.",
        "rewards + gamma * (1 - over) * following.max(dim=1).values",
    ),
)


def surprise(predicted: Tensor, came: Tensor) -> Tensor:
    """Features (N, d) that a model predicted, and those that came -> half the mean squared error of each, (N,)."""
    return (predicted - came).square().mean(dim=1) / 2


def _features(generator: torch.Generator) -> list[Case]:
    return [(cases.normal(generator, n, d), cases.normal(generator, n, d)) for n, d in ((5, 3), (4, 7), (2, 6))]


how_surprising = Check(
    name="18.3 how surprising",
    reference=surprise, cases=_features,
    rights=(
        lambda predicted, came: torch.stack(
            [((p - c) ** 2).sum() / (2 * len(p)) for p, c in zip(predicted, came, strict=True)]),
        lambda predicted, came: 0.5 * functional.mse_loss(predicted, came, reduction="none").mean(dim=1),
    ),
    wrongs=(
        Wrong("one for all", lambda predicted, came: (predicted - came).square().mean() / 2, """You give one number for
            the whole batch. Each step gets a reward of its own: the mean is over features, dim=1."""),
        Wrong("over the batch", change=("dim=1", "dim=0"), hint="""
            You take the mean over the batch: one number for each feature. A reward belongs to a step: dim=1."""),
        Wrong("not halved", change=(" / 2", ""), hint="Half the mean squared error is asked for, as in the paper."),
        Wrong("sum", change=("mean(dim=1)", "sum(dim=1)"), hint="""
            You add over the features; their mean is asked for, so that the reward doesn't grow with their number."""),
        Wrong("distance", lambda predicted, came: (predicted - came).norm(dim=1) / 2, """
            You take the root, which makes it a distance. The squares are what is asked for."""),
        Wrong("absolute", change=("square()", "abs()"), hint="You take absolute differences; squares are asked for."),
    ),
    hints=(
        "Each step has two rows: what was foreseen, and what came. How far are they apart?",
        "Squared differences, their mean over the features of a row, halved.",
        "(predicted - came).square().mean(dim=1) / 2",
    ),
)


def contrast(queries: Tensor, keys: Tensor, bilinear: Tensor) -> Tensor:
    """queries and keys (N, d), row i of both of one frame; bilinear (d, d) -> CURL's loss, a scalar."""
    logits = queries @ bilinear @ keys.detach().T  # (N, N): a row per query
    return functional.cross_entropy(logits, torch.arange(len(queries)))


def _frames(generator: torch.Generator) -> Iterator[Case]:
    for n, d in ((5, 3), (4, 6), (7, 4)):
        queries = cases.normal(generator, n, d)
        keys = queries + 0.7 * cases.normal(generator, n, d)
        yield queries, keys, cases.normal(generator, d, d)


def _contrast_in_loop(queries, keys, bilinear):
    total = 0.0
    for i, query in enumerate(queries):
        scores = torch.stack([query @ bilinear @ key.detach() for key in keys])
        total = total + scores.logsumexp(dim=0) - scores[i]
    return total / len(queries)


def _contrast_by_logarithms(queries, keys, bilinear):
    with torch.no_grad():
        fixed = keys.clone()
    return -torch.einsum("nd,de,me->nm", queries, bilinear, fixed).log_softmax(dim=1).diagonal().mean()


beside_the_reward = Check(
    name="18.4 beside the reward",
    reference=contrast, cases=_frames, run=value_and_gradients, forbidden=(yourself("sslcourse.losses"),),
    rights=(_contrast_in_loop, _contrast_by_logarithms),
    wrongs=(
        Wrong("gradient into the keys", change=("keys.detach().T", "keys.T"), hint="""
            The keys get a gradient. They come from the slow target network, which isn't taught: detach()."""),
        Wrong("matrix turned", change=("@ bilinear @", "@ bilinear.T @"), hint="""
            Your matrix is turned over: the score of query q and key k is q @ bilinear @ k."""),
        Wrong("no matrix", change=("queries @ bilinear @", "queries @"), hint="""
            The matrix doesn't take part. CURL learns how queries and keys are compared: q @ bilinear @ k."""),
        Wrong("keys ask", change=("functional.cross_entropy(logits,", "functional.cross_entropy(logits.T,"), hint="""
            In your loss each key looks for its query. The queries ask, and a row belongs to a query."""),
        Wrong("sum", change=("torch.arange(len(queries)))", "torch.arange(len(queries)), reduction='sum')"), hint="""
            You add over the batch; the mean is asked for."""),
        Wrong("normalized", lambda queries, keys, bilinear: contrast(
            functional.normalize(queries, dim=1), functional.normalize(keys, dim=1), bilinear), """
            You give queries and keys length 1, which SimCLR does and CURL doesn't: the matrix sets the scale."""),
    ),
    hints=(
        "N queries, N keys: which key is the right one of query i, and what are its wrong ones?",
        "Scores queries @ bilinear @ keys.T, (N, N); the right column of row i is i; the keys are constants.",
        "functional.cross_entropy(queries @ bilinear @ keys.detach().T, torch.arange(len(queries)))",
    ),
)
