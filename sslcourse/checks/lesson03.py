"""Checks of the exercises of lesson 03: rotation in practice."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import schedules
from sslcourse.checks.cases import normal, seed, uniform, whole
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Mistake, Wrong


class _CountingSGD(torch.optim.SGD):
    """SGD that counts its steps."""

    steps = 0

    def step(self, *args, **kwargs):
        self.steps += 1
        return super().step(*args, **kwargs)


def _step_cases(generator: torch.Generator) -> Iterator[tuple]:
    """A small network with batch norm, an optimizer with momentum, and three batches: the second shows the most."""
    for count, width, rate in ((6, 5, 0.1), (9, 4, 0.05)):
        torch.manual_seed(seed(generator))
        model = nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        optimizer = _CountingSGD(model.parameters(), lr=rate, momentum=0.9)
        batches = [(normal(generator, count, width), whole(generator, 4, count)) for _ in range(3)]
        yield model, optimizer, batches


def _take_steps(answer: Callable, case: tuple) -> dict[str, Any]:
    model, optimizer, batches = case
    losses = {f"loss of step {i + 1}": answer(model, optimizer, *batch) for i, batch in enumerate(batches)}
    weights, averages = list(model.parameters()), list(model.buffers())
    return {**losses, "optimizer's steps": optimizer.steps, "weights": weights, "batch norm's averages": averages}


def one_training_step(model, optimizer, images, turns):
    """images (N, ...), turns int64 (N,) -> the loss, a number."""
    loss = functional.cross_entropy(model(images), turns)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _zero_grad_first(model, optimizer, images, turns):
    model.train()
    optimizer.zero_grad(set_to_none=False)
    log_p = model(images).log_softmax(dim=1)
    loss = -log_p[torch.arange(len(turns)), turns].mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _with_autograd_grad(model, optimizer, images, turns):
    criterion = nn.CrossEntropyLoss()
    loss = criterion(model(images), turns)
    weights = list(model.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimizer.step()
    return loss.detach().numpy().item()


train_step = Check(
    name="3.1 one training step", reference=one_training_step, cases=_step_cases, run=_take_steps,
    close=Closeness(plain=True), rights=(_zero_grad_first, _with_autograd_grad),
    wrongs=(
        Wrong("gradients accumulate", change=("optimizer.zero_grad()", "pass"), hint="""Your gradients accumulate:
            .backward() adds to what is in p.grad, so from the second step on you follow the sum of all gradients so
            far. Call optimizer.zero_grad() once in every step, before .backward()."""),
        Wrong("no gradient at the step", change=(("optimizer.zero_grad", "loss.backward"),
            ("loss.backward", "optimizer.zero_grad")), also=(("loss.backward()", "pass"), (("optimizer.step()", "pass"),
            ("loss.backward()", "optimizer.step(); loss.backward()"))),
            hint="""When optimizer.step() runs, there is no gradient to follow, so no weight moves: either .backward()
            hasn't been called yet, or zero_grad() came in between. The order is zero_grad, backward, step."""),
        Wrong("no optimizer step", change=("optimizer.step()", "pass"), hint="""The gradient is computed and never used:
            the weights are the same after your step. optimizer.step() is what moves them, after .backward()."""),
        Wrong("step before backward", change=(("optimizer.step()", "pass"),
            ("optimizer.zero_grad()", "optimizer.step(); optimizer.zero_grad()")),
            hint="""You call optimizer.step() before this batch's .backward(), so each step follows the gradient of the
            batch before. The step comes last, after zero_grad() and .backward()."""),
        Wrong("loss cut off", change=("(model(images), turns)", "(model(images), turns).detach()"),
            also=(("model(images)", "model(images).detach()"),), hint="""The loss that you call .backward() on is cut
            off from the weights: .detach(), .data or torch.no_grad() has removed the graph. Compute the forward pass
            and the loss with gradients on, and detach only what you return."""),
        Wrong("backward on a number", change=(("(model(images), turns)", "(model(images), turns).item()"),
            ("return loss.item()", "return loss")),
            hint=""".item() turned the loss into a Python number before .backward(): a number has no graph. Call
            .backward() on the tensor, and .item() only for what you return."""),
        Wrong("softmax twice", change=("model(images)", "model(images).softmax(dim=1)"), hint="""You take the softmax
            twice: cross_entropy takes logits and applies log-softmax itself. Give it what the model returns."""),
        Wrong("summed", change=("model(images), turns", 'model(images), turns, reduction="sum"'), hint="""You sum the
            loss over the batch; the mean is needed, so that the step doesn't grow with the batch size."""),
        Wrong("eval mode", change=("loss = functional", "model.eval(); loss = functional"),
            hint="""You train in evaluation mode: batch norm then uses its running averages instead of the batch's
            statistics, and never updates them. Leave the model in training mode (model.train())."""),
        Wrong("a new optimizer each step", change=("optimizer.step()",
            'torch.optim.SGD(model.parameters(), lr=optimizer.param_groups[0]["lr"], momentum=0.9).step()'),
            also=(("optimizer.step()",
            'for p in model.parameters(): p.data -= optimizer.param_groups[0]["lr"] * p.grad'),),
            hint="""The step isn't taken by the optimizer that is passed in, but by a new one or by hand, and the memory
            of the steps before (here the momentum) is lost every time. Call optimizer.step()."""),
        Wrong("two optimizer steps", change=("optimizer.step()", "optimizer.step(); optimizer.step()"),
            hint="""You call optimizer.step() twice: the second time follows the same gradient again, from weights that
            have moved on."""),
        Wrong("the batch taken twice", lambda *arguments: [one_training_step(*arguments) for _ in range(2)][1],
            "You train on the batch twice. One forward pass, one backward pass and one step are asked for."),
        Wrong("two forward passes", change=("loss = functional", "model(images); loss = functional"),
            also=(("return loss", "model(images); return loss"),),
            hint="""The loss and the weights are right, but the batch goes through the model twice, and batch norm's
            averages move twice. Call the model once, and keep what it returns."""),
        Wrong("uphill", change=("loss.backward", "(-loss).backward"), hint="""You climb: .backward() runs on minus the
            loss. Optimizers go downhill on whatever .backward() was called on."""),
        Wrong("log-softmax left out", change=("cross_entropy", "nll_loss"), hint="""nll_loss expects log-probabilities,
            and the model gives logits. Use functional.cross_entropy, which is log_softmax and nll_loss in one."""),
        Wrong("squared error", change=("cross_entropy(model(images), turns)",
            "mse_loss(model(images), functional.one_hot(turns, 4).float())"), hint="""You use the squared error; the
            loss of a classification is the cross-entropy, functional.cross_entropy(logits, turns)."""),
        Wrong("divided by the batch size", change=("loss.item()", "loss.item() / len(images)"),
            also=(("cross_entropy(model(images), turns)", "cross_entropy(model(images), turns) / len(images)"),),
            hint="You divide the loss by the batch size, but cross_entropy is a mean over the batch already."),
        Wrong("accuracy returned", change=(("(model(images), turns)", "(logits := model(images), turns)"),
            ("loss.item()", "(logits.argmax(dim=1) == turns).float().mean().item()")),
            hint="You return the accuracy; the loss is asked for."),
        Wrong("arguments swapped", change=("model(images), turns", "turns, model(images)"),
            hint="cross_entropy takes the logits first and the labels second."),
        Wrong("nothing returned", change=("return loss.item()", "pass"),
            hint="The step is right, but nothing is returned: end with `return loss.item()`."),
        Wrong("loss after the step",
            change=("return loss.item()", "return functional.cross_entropy(model(images), turns).item()"),
            hint="""The weights move rightly, but you return the loss of a second forward pass, made after the step.
            Return the loss that you called .backward() on: it is there already, and the second pass costs time and
            changes batch norm's averages."""),
    ),
    mistakes=(
        Mistake("loss still in the graph", lambda answer, cases: isinstance(loss := answer(*cases[0][:2],
            *cases[0][2][0]), Tensor) and loss.requires_grad, example=(".item()", ""),
            hint="""You return the loss as a tensor that still holds its graph: a list of such losses keeps every
            batch's activations in memory. Return loss.item()."""),
    ),
    hints=(
        """Five things happen in a step: the loss, old gradients away, new gradients, the weights move, and the loss is
        returned as a number. Which of them must come before which?""",
        """The loss is cross-entropy of model(images) against turns. optimizer.zero_grad() must come before
        loss.backward(), and optimizer.step() after it.""",
        """loss = nn.functional.cross_entropy(model(images), turns); then optimizer.zero_grad(), loss.backward(),
        optimizer.step(), and return loss.item().""",
    ),
    praise="Zero, backward, step: every network of this course is trained by these three lines.",
)


class SmallNet(nn.Module):
    """A network made as torchvision's ResNets are: layers, an average over positions, a classifier called fc."""

    def __init__(self, width: int = 12, classes: int = 20):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.Tanh()  # features of both signs: a ReLU in the place of fc is seen
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))  # (N, width, H/2, W/2)
        return self.fc(torch.flatten(self.avgpool(x), 1))  # (N, classes)


def _model_cases(generator: torch.Generator) -> Iterator[tuple]:
    for count, width, fc, side, classes in ((2, 6, 20, 8, 4), (3, 10, 7, 6, 4), (5, 7, 13, 10, 3)):
        torch.manual_seed(seed(generator))
        yield SmallNet(width, fc), classes, uniform(generator, count, 3, side, side + 2)


def _use_model(answer: type, case: tuple) -> dict[str, Any]:
    """The model's logits and features, with every weight that the answer added set to known numbers."""
    network, classes, images = case
    model = answer(network, classes)
    named = {f"self.{name}": getattr(model, name, None) is not None for name in ("backbone", "classifier")}
    if not all(named.values()):
        features = list(model.backbone(images).shape) if named["self.backbone"] else None
        return {"has": named, "logits": list(model(images).shape), "features": features}
    model(images)  # a lazy layer has its weights only now
    with torch.no_grad():
        for layer in filter(lambda layer: isinstance(layer, nn.Linear), model.modules()):
            for parameter in layer.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).sin().view_as(parameter))
    logits = model(images)
    reached = False
    if isinstance(logits, Tensor) and logits.requires_grad:
        first = next(model.backbone.parameters())
        reached = torch.autograd.grad(logits.square().sum(), first, allow_unused=True)[0] is not None
    features = model.backbone.eval()(images).flatten(1)
    return {"has": named, "features": features, "logits": logits, "gradient reaches the backbone": reached}


class RotNetModel(nn.Module):
    """A network whose linear layer fc makes room for a classifier of num_classes; images -> logits (N, num_classes)."""

    def __init__(self, network, num_classes=4):
        super().__init__()
        self.classifier = nn.Linear(network.fc.in_features, num_classes)
        self.backbone = network
        self.backbone.fc = nn.Identity()

    def forward(self, x):
        return self.classifier(self.backbone(x))


class _ModelCut(RotNetModel):
    def __init__(self, network, num_classes=4):
        nn.Module.__init__(self)
        self.backbone = nn.Sequential(*list(network.children())[:-1], nn.Flatten())
        self.classifier = nn.Linear(network.fc.weight.shape[1], num_classes)


class _ModelWithEmptySequence(nn.Module):
    def __init__(self, network, num_classes=4):
        super().__init__()
        features, network.fc = network.fc.in_features, nn.Sequential()
        self.backbone, self.classifier = network, nn.Sequential(nn.Linear(features, num_classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.backbone(x), start_dim=1))


class _ModelOfCopyAndLazyLayer(RotNetModel):
    def __init__(self, network, num_classes=4):
        nn.Module.__init__(self)
        self.backbone, self.classifier = copy.deepcopy(network), nn.LazyLinear(num_classes)
        self.backbone.fc = nn.Identity()


def _classifier_is_more_or_less(answer: type, cases: list[tuple]) -> bool:
    network, classes, _ = cases[0]
    needed = classes * (network.conv1.out_channels + 1)
    return sum(p.numel() for p in answer(network, classes).classifier.parameters()) != needed


rotnet_model = Check(
    name="3.2 repair the model", kind="class", reference=RotNetModel, cases=_model_cases, run=_use_model,
    rights=(_ModelCut, _ModelWithEmptySequence, _ModelOfCopyAndLazyLayer),
    wrongs=(
        Wrong("fc kept, as in the listing", change=("self.backbone.fc = nn.Identity()", "pass"), hint="""The network
            still ends in its own fc, so it gives as many numbers as fc has outputs, and the classifier expects as many
            as fc has inputs. Put nn.Identity() in the place of fc, after reading fc.in_features."""),
        Wrong("classifier on the old head", change=(("self.backbone.fc = nn.Identity()", "pass"),
            ("in_features", "out_features")), hint="""This runs, but the network still ends in its own fc, and your
            classifier reads fc's outputs instead of the features: pretraining then goes through a layer that is thrown
            away. Replace fc by nn.Identity(), and let the classifier take fc.in_features."""),
        Wrong("head inside the backbone", change=(("self.classifier = nn", "head = nn"), ("nn.Identity()", "head"),
            ("self.classifier(self.backbone(x))", "self.backbone(x)")), also=((("nn.Identity()", "self.classifier"),
            ("self.classifier(self.backbone(x))", "self.backbone(x)")),), hint="""You put the new head in the place of
            fc, inside the backbone: then backbone(x) gives logits, and there are no features to keep after pretraining.
            Put nn.Identity() there, and the head into self.classifier."""),
        Wrong("two heads in a row", change=(("nn.Identity()", "nn.Linear(network.fc.in_features, num_classes)"),
            ("self.classifier = nn.Linear(network.fc.in_features", "self.classifier = nn.Linear(num_classes")),
            hint="""Two linear layers follow each other: fc squeezes the features to num_classes numbers before your
            classifier sees them. Replace fc by nn.Identity(), so that the classifier reads the features."""),
        Wrong("in_features read too late",
            change=("super().__init__()", "super().__init__(); network.fc = nn.Identity()"), hint="""You read
            fc.in_features after replacing fc, and nn.Identity has none. Read it first, then replace fc."""),
        Wrong("fc is None", change=("nn.Identity()", "None"), hint="""You set fc to None, but the network's forward
            still calls self.fc(...). nn.Identity() can be called, and gives back what it is given."""),
        Wrong("fc deleted", change=("self.backbone.fc = nn.Identity()", "del self.backbone.fc"),
            hint="""You delete fc, but the network's forward still calls self.fc(...). Replace it by nn.Identity(),
            which gives back what it is given."""),
        Wrong("not flattened", change=(("self.backbone.fc = nn.Identity()", "pass"),
            ("self.backbone = network", "self.backbone = nn.Sequential(*list(network.children())[:-1])")),
            hint="""Without its forward, the network's layers end with a map of shape (N, C, 1, 1): the flattening was
            in forward, not in a layer. Add nn.Flatten(), or keep the network and replace its fc by nn.Identity()."""),
        Wrong("2048 written down", change=("network.fc.in_features", "2048"), hint="""2048 is ResNet-50's feature
            dimension, and other networks have another: take it from network.fc.in_features."""),
        Wrong("always four classes", change=("in_features, num_classes)", "in_features, 4)"), hint="""Your classifier
            always has four outputs: use num_classes, so that the class serves other pretext tasks too."""),
        Wrong("softmax in forward",
            change=("self.classifier(self.backbone(x))", "self.classifier(self.backbone(x)).softmax(dim=1)"),
            hint="""You return probabilities. The loss, cross_entropy, takes logits and applies log-softmax itself, so
            leave the softmax out."""),
        Wrong("log-softmax in forward",
            change=("self.classifier(self.backbone(x))", "self.classifier(self.backbone(x)).log_softmax(dim=1)"),
            hint="You return log-probabilities; logits are needed. cross_entropy applies log-softmax itself."),
        Wrong("argmax in forward",
            change=("self.classifier(self.backbone(x))", "self.classifier(self.backbone(x)).argmax(dim=1)"), hint="""You
            return the most likely class, and an argmax has no gradient: return the logits (N, num_classes)."""),
        Wrong("no gradient to the backbone", change=("self.backbone(x)", "self.backbone(x).detach()"),
            hint="""The logits are right, but no gradient reaches the backbone (torch.no_grad or .detach()), and the
            backbone is what pretraining is for. Call it with gradients on."""),
        Wrong("features returned", change=("self.classifier(self.backbone(x))", "self.backbone(x)"), hint="""forward
            returns the features; the classifier is there and isn't used. Return self.classifier(self.backbone(x))."""),
        Wrong("super().__init__() left out", change=("super().__init__()", "pass"),
            hint="super().__init__() must run before you assign a layer: nn.Module keeps its list of layers there."),
        Wrong("another name", change=("self.classifier", "self.head"),
            hint="""The backbone is right, but the linear layer on top isn't called self.classifier: that name is asked
            for, so that whoever uses the model can find it."""),
        Wrong("Identity without parentheses", change=("nn.Identity()", "nn.Identity"),
            hint="nn.Identity is a class; a layer is an instance of it: nn.Identity()."),
        Wrong("in and out turned around",
            change=("network.fc.in_features, num_classes", "num_classes, network.fc.in_features"), hint="""nn.Linear
            takes what comes in first and what goes out second: nn.Linear(network.fc.in_features, num_classes)."""),
        Wrong("forward returns nothing", change=("return ", ""),
            hint="forward computes the logits and returns nothing: is `return` missing?"),
    ),
    mistakes=(
        Mistake("the backbone ends in a linear layer",
            lambda answer, cases: isinstance(getattr(answer(*cases[0][:2]).backbone, "fc", None), nn.Linear),
            example=("nn.Identity()", "nn.Linear(network.fc.in_features, network.fc.in_features)"),
            hint="""The backbone still ends in a linear layer called fc, an old one or a new one, so backbone(x) gives
            that layer's outputs and not the features. Put nn.Identity() in its place."""),
        Mistake("another classifier", _classifier_is_more_or_less,
            example=("nn.Linear(network.fc.in_features, num_classes)",
            "nn.Sequential(nn.Linear(network.fc.in_features, 8), nn.ReLU(), nn.Linear(8, num_classes))"),
            hint="""self.classifier should be one linear layer with a bias, from the features to num_classes, and yours
            has another number of weights."""),
    ),
    hints=(
        """What does network(x) return, and how many numbers does the classifier expect? The layer in between is the one
        that is too much.""",
        """The network has to end in its features: put a layer that changes nothing in the place of network.fc. You need
        fc.in_features for the classifier, so read it while fc is still there.""",
        """self.classifier = nn.Linear(network.fc.in_features, num_classes); self.backbone = network; self.backbone.fc =
        nn.Identity(); and forward returns self.classifier(self.backbone(x)).""",
    ),
    praise="After pretraining, model.backbone is what you keep, and model.classifier what you throw away.",
)


def warmup_cosine(progress, warmup):
    """progress in [0, 1], warmup in [0, 1) -> the factor of the learning rate, in [0, 1]."""
    if progress < warmup:
        return progress / warmup
    p = (progress - warmup) / (1 - warmup)  # the share of the fall that is done
    return 0.5 * (1 + math.cos(math.pi * p))


def _schedule_cases(generator: torch.Generator) -> list[tuple]:
    at_the_ends = [(0.0, 0.2), (0.2, 0.2), (0.5, 0.5), (1.0, 0.3), (0.0, 0.0), (1.0, 0.0)]
    between = [(0.05, 0.1), (0.6, 0.2), (0.3, 0.0)]
    drawn = uniform(generator, 6, 2).tolist()
    return at_the_ends + between + [(progress, 0.1 + 0.5 * warmup) for progress, warmup in drawn]


def _factor_by_half_angle(progress, warmup):
    if warmup > 0 and progress <= warmup:
        return progress / warmup
    return math.cos(0.5 * math.pi * (progress - warmup) / (1 - warmup)) ** 2


def _factor_with_tensors(progress, warmup):
    rise = torch.tensor(1.0 if warmup == 0 else min(progress / warmup, 1.0))
    done = torch.tensor((progress - warmup) / (1 - warmup)).clamp(0, 1)
    return rise * (1 + torch.cos(torch.pi * done)) / 2


schedule = Check(
    name="3.3 warm-up and cosine", reference=warmup_cosine, cases=_schedule_cases,
    close=Closeness(rtol=1e-4, atol=1e-6),
    rights=(schedules.warmup_cosine, _factor_by_half_angle, _factor_with_tensors),
    wrongs=(
        Wrong("no warm-up", lambda progress, warmup: 0.5 * (1 + math.cos(math.pi * progress)),
            also=(lambda progress, warmup: 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))),
            ("progress / warmup", "1.0")), hint="""There is no warm-up: while progress is below `warmup`, the factor
            should rise in a straight line from 0 to 1."""),
        Wrong("cosine starts at zero progress", change=("(progress - warmup) / (1 - warmup)", "progress"),
            hint="""The factor jumps where the warm-up ends: your cosine counts from progress 0. It should begin where
            the warm-up ends, so it takes (progress - warmup) / (1 - warmup)."""),
        Wrong("warm-up times cosine", lambda progress, warmup: (min(1.0, progress / warmup) if warmup else 1.0)
            * 0.5 * (1 + math.cos(math.pi * progress)),
            """You multiply the rise by a cosine that runs from the start, so the factor never reaches 1. The cosine
            should begin where the warm-up ends, at (progress - warmup) / (1 - warmup)."""),
        Wrong("cosine not stretched", change=(" / (1 - warmup)", ""),
            hint="""The factor doesn't reach 0 at progress 1: after a warm-up only the share 1 - warmup is left, and the
            whole half wave must fit into it. Divide progress - warmup by 1 - warmup."""),
        Wrong("a whole wave", change=("math.pi", "2 * math.pi"), hint="""You take a whole wave (2π), so the rate is back
            at its peak at the end. Half a wave, cos from 0 to π, falls from 1 to -1."""),
        Wrong("a quarter wave", change=("0.5 * (1 + math.cos(math.pi * p))", "math.cos(0.5 * math.pi * p)"),
            hint="""You take a quarter wave, cos from 0 to π/2. It does fall from 1 to 0, but it is steepest at the end.
            Half a wave is needed: (1 + cos(π p)) / 2, which is flat at both ends."""),
        Wrong("not shifted", change=("0.5 * (1 + math.cos(math.pi * p))", "math.cos(math.pi * p)"), hint="""Your cosine
            runs from 1 to -1, and a negative learning rate climbs the loss: (1 + cos(π p)) / 2 runs from 1 to 0."""),
        Wrong("halved, not lifted", change=("1 + ", ""),
            hint="Your cosine runs from 1/2 to -1/2: add 1 before you halve, (1 + cos(π p)) / 2."),
        Wrong("lifted, not halved", change=("0.5 * ", ""),
            hint="Your cosine runs from 2 to 0: the factor must be 1 where the warm-up ends, so halve 1 + cos(π p)."),
        Wrong("stretched, not shifted", change=("(progress - warmup)", "progress"),
            hint="You divide by 1 - warmup, but the cosine still counts from progress 0: subtract warmup first."),
        Wrong("sine", change=("math.cos", "math.sin"),
            hint="That is a sine: it rises and comes back. The cosine falls from 1 to -1 over half a wave."),
        Wrong("degrees", change=("math.pi", "180"), hint="math.cos takes radians: half a wave is π, not 180."),
        Wrong("rising", change=("1 + ", "1 - "),
            hint="Your cosine rises from 0 to 1 after the warm-up: it should fall. The sign before cos is plus."),
        Wrong("a straight fall", change=("0.5 * (1 + math.cos(math.pi * p))", "1 - p"),
            hint="The fall is a straight line here: half a cosine wave is asked for, (1 + cos(π p)) / 2."),
        Wrong("no fall", change=("0.5 * (1 + math.cos(math.pi * p))", "1.0"), hint="""The factor stays at 1 after the
            warm-up: it should fall along half a cosine wave, to 0 at progress 1."""),
        Wrong("division by zero", change=("progress < warmup", "progress <= warmup"),
            also=(lambda progress, warmup: min(progress / warmup, 1.0) * warmup_cosine(max(progress, warmup), warmup),
            ("progress < warmup", "progress < warmup or warmup == 0")),
            hint="""With warmup = 0 you divide by zero. Without a warm-up the cosine begins at once: divide only while
            progress < warmup, which is never so when warmup is 0."""),
        Wrong("warm-up too low", change=("progress / warmup", "progress"),
            also=(("progress / warmup", "progress * warmup"),), hint="""During the warm-up you return progress itself,
            so it ends at `warmup` instead of 1: divide by warmup."""),
        Wrong("warm-up downwards", change=("progress / warmup", "1 - progress / warmup"),
            hint="Your warm-up falls from 1 to 0: it should rise from 0 to 1, progress / warmup."),
    ),
    hints=(
        """Two pieces: a straight line while progress < warmup, and half a cosine wave after it. Both must be 1 where
        they meet.""",
        """For the second piece, count anew: p = (progress - warmup) / (1 - warmup) is 0 where the warm-up ends, and 1
        at the end of training. Half a cosine wave from 1 to 0 is (1 + cos(π p)) / 2.""",
        """if progress < warmup: return progress / warmup; otherwise return 0.5 * (1 + math.cos(math.pi * (progress -
        warmup) / (1 - warmup))).""",
    ),
    praise="A schedule without memory can't be resumed wrong.",
)


def _probe_cases(generator: torch.Generator) -> Iterator[tuple]:
    for count, width, classes, side in ((6, 5, 3, 8), (8, 7, 4, 6)):
        torch.manual_seed(seed(generator))
        backbone = SmallNet(width)
        backbone.fc = nn.Identity()
        backbone(normal(generator, 12, 3, side, side))  # so that its averages aren't the first ones
        images = normal(generator, count, 3, side, side + 1)  # features of both signs
        yield backbone, width, classes, images, whole(generator, classes, count)


def _train_probe(answer: type, case: tuple) -> dict[str, Any]:
    """Train the probe as anybody would, with .train() called on it, and look what has moved."""
    backbone, dim, classes, images, labels = case
    probe = answer(backbone, dim, classes)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    if getattr(probe, "head", None) is None or not list(probe.head.parameters()):
        return {"has a head": False}
    probe.head.load_state_dict({name: torch.zeros_like(weight) for name, weight in probe.head.state_dict().items()})
    trained = [parameter for parameter in probe.parameters() if parameter.requires_grad]
    itself = probe.train()
    if not trained:
        return {"has a head": True, "trained parameters": 0}
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.5)
    for _ in range(2):
        one_training_step(probe, optimizer, images, labels)
    head = probe.head.training
    probe.eval()
    after = getattr(probe, "backbone", backbone).state_dict()
    after = after if after.keys() == before.keys() else backbone.state_dict()
    same = {name: torch.equal(before[name], after[name]) for name in before}
    weights = [name for name, _ in backbone.named_parameters()]
    return {
        "has a head": True,
        "trained parameters": sum(parameter.numel() for parameter in trained),
        "weights of the backbone unchanged": all(same[name] for name in weights),
        "averages of the backbone unchanged": all(same[name] for name in same if name not in weights),
        "backbone has an attribute requires_grad": hasattr(backbone, "requires_grad"),
        "train() returns the probe": itself is probe,
        "head trains after train()": head,
        "head trains after eval()": probe.head.training,
        "logits": probe(images),
    }


class FrozenProbe(nn.Module):
    """backbone: images -> features (N, dim), which stays as it is; the probe: images -> logits (N, classes)."""

    def __init__(self, backbone, dim, classes):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.head = nn.Linear(dim, classes)

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x):
        return self.head(self.backbone(x))


class _ProbeEvalInForward(nn.Module):
    def __init__(self, backbone, dim, classes):
        super().__init__()
        self.backbone, self.head = copy.deepcopy(backbone), nn.Linear(dim, classes)
        for parameter in self.backbone.parameters():
            parameter.requires_grad = False

    def forward(self, x):
        self.backbone.eval()
        with torch.no_grad():
            z = self.backbone(x)
        return self.head(z)


class _ProbeOverModules(FrozenProbe):
    def train(self, mode=True):
        self.training = mode
        self.head.train(mode)
        for module in self.backbone.modules():
            module.training = False
        return self


def _averages_alone_move(answer: type, case: tuple) -> bool:
    result = _train_probe(answer, case)
    return result["weights of the backbone unchanged"] and not result["averages of the backbone unchanged"]


def _evaluates_once(answer: type, cases: list[tuple]) -> bool:
    backbone, dim, classes, *_ = cases[0]
    answer(backbone, dim, classes)
    return not backbone.training and _averages_alone_move(answer, cases[1])


def _asks_for_gradients(answer: type, cases: list[tuple]) -> bool:
    asks = any(parameter.requires_grad for parameter in answer(*cases[0][:3]).backbone.parameters())
    return asks and _averages_alone_move(answer, cases[1])


frozen_probe = Check(
    name="3.4 a backbone that stays frozen", kind="class", reference=FrozenProbe, cases=_probe_cases, run=_train_probe,
    close=Closeness(rtol=1e-3, atol=1e-4), rights=(_ProbeEvalInForward, _ProbeOverModules),
    wrongs=(
        Wrong("requires_grad set on the module",
            change=("backbone.requires_grad_(False)", "backbone; backbone.requires_grad = False"),
            also=((("backbone.requires_grad_(False)", "backbone; backbone.requires_grad = False"),
            ("self.backbone.eval()", "pass")),
            (("backbone.requires_grad_(False)", "backbone; backbone.requires_grad = False"),
            ("self.backbone.eval()", "pass"), ("self.backbone(x)", "self.backbone(x).detach()"))),
            hint="""backbone.requires_grad = False gives the module a new attribute and changes no parameter. The method
            backbone.requires_grad_(False), with the underscore, goes through all of them."""),
        Wrong("eval alone", change=(".requires_grad_(False)", ""),
            hint="""Evaluation mode doesn't freeze weights: it only changes what batch norm and dropout do. The
            backbone's parameters still get gradients and move. Set requires_grad_(False) as well."""),
        Wrong("not frozen", change=((".requires_grad_(False)", ""), ("self.backbone.eval()", "pass")),
            hint="""Nothing is frozen: weights and batch norm's averages both move, which is fine-tuning, not a probe.
            Set requires_grad_(False) on the backbone and keep it in evaluation mode."""),
        Wrong("parameters still ask for gradients", change=((".requires_grad_(False)", ""),
            ("self.backbone(x)", "self.backbone(x).detach()")),
            hint="""Nothing moves here, but the backbone's parameters still say requires_grad: whoever counts what is
            trained, or gives it to an optimizer, takes them for part of the probe. Add requires_grad_(False)."""),
        Wrong("statistics of the batch", change=("self.backbone.eval()",
            "for module in self.backbone.modules(): module.track_running_stats = False"),
            hint="""Nothing in the backbone moves, but while the probe trains it normalizes with the batch's statistics,
            so a picture's features depend on its neighbours and aren't those that are used afterwards. Evaluation mode
            uses the stored averages."""),
        Wrong("head frozen too",
            change=("nn.Linear(dim, classes)", "nn.Linear(dim, classes); self.requires_grad_(False)"),
            hint="""You froze the head as well, so nothing is left to train. Call requires_grad_(False) on the backbone
            alone, not on the whole probe."""),
        Wrong("train() returns nothing", change=("return self\n", "pass\n"),
            hint="""Your train() doesn't return anything, but nn.Module's returns the module, and people write
            model.train()(x). End it with `return self`."""),
        Wrong("no attribute head", change=(("self.head = ", "self.backbone.fc = "),
            ("self.head(self.backbone(x))", "self.backbone(x)")), hint="""The probe needs its linear layer as self.head,
            outside the backbone: the backbone stays as pretraining left it, and can be used again by others."""),
        Wrong("the probe never trains", change=("super().train(mode)", "super().train(False)"),
            hint="""Your train() puts the whole probe into evaluation mode. That is harmless for a linear head, and
            wrong as soon as someone puts dropout into it: super().train(mode) for all, then self.backbone.eval()."""),
        Wrong("mode not passed on", change=("super().train(mode)", "super().train()"),
            hint="""After probe.eval() your head is in training mode: eval() calls train(False), and your train()
            doesn't hand `mode` on. super().train(mode) does."""),
        Wrong("head without a gradient",
            change=("return self.head(self.backbone(x))", "return self.head(self.backbone(x)).detach()"),
            hint="""Your logits are cut off from the head: torch.no_grad() or .detach() goes around both. Only the
            backbone's forward belongs inside; the head must learn."""),
        Wrong("softmax in forward",
            change=("self.head(self.backbone(x))", "self.head(self.backbone(x)).softmax(dim=1)"),
            hint="You return probabilities; logits are needed, since cross_entropy applies log-softmax itself."),
    ),
    mistakes=(
        Mistake("order in train()",
            lambda answer, cases: answer.train is not nn.Module.train and _averages_alone_move(answer, cases[0]),
            example=(("self.backbone.eval()", "pass"),
            ("super().train(mode)", "self.backbone.eval(); super().train(mode)")), hint="""You define train(), and after
            it the backbone is in training mode all the same: does super().train(mode) run last, or is the backbone's
            own .eval() missing? It reaches every module inside, so self.backbone.eval() must come after it."""),
        Mistake("eval once", _evaluates_once, example=(("(False)", "(False).eval()"), ("self.backbone.eval()", "pass"),
            ("def train(", "def prepare(")), hint="""You call backbone.eval() once, but .train() on the probe reaches
            every module inside it and undoes that, so batch norm's averages move after all. Define train(self,
            mode=True) in your class: let super().train(mode) run, then put the backbone back into evaluation mode."""),
        Mistake("parameters left in the optimizer", _asks_for_gradients, example=((".requires_grad_(False)", ""),
            ("self.backbone.eval()", "pass"), ("self.backbone(x)", "self.backbone(x).detach()"),
            ("def train(", "def prepare(")), hint="""torch.no_grad() stops the gradient, but the backbone is still in
            training mode, so batch norm's averages move; and its parameters still say requires_grad, so whoever builds
            the optimizer takes them along. Use requires_grad_(False), and evaluation mode."""),
        Mistake("averages move", lambda answer, cases: _averages_alone_move(answer, cases[0]),
            example=("def train(", "def prepare("), hint="""No weight of the backbone moves, but batch norm's running
            averages do: they aren't trained by gradients, they are updated by every forward pass in training mode. The
            backbone must be in evaluation mode while the probe trains."""),
    ),
    hints=(
        """Two different things can move in a backbone: parameters, which follow gradients, and buffers (batch norm's
        running averages), which follow forward passes. Each needs its own brake.""",
        """requires_grad_(False) stops the parameters. Evaluation mode stops the averages, but probe.train() switches
        every module inside back to training mode: override train in your class.""",
        "def train(self, mode=True): super().train(mode); self.backbone.eval(); return self",
    ),
    praise="Whatever the probe reads now was there before it came.",
)


def _paired_cases(generator: torch.Generator) -> Iterator[tuple]:
    """Accuracies of two methods over seeds: the seeds differ more than the methods do, which is what pairing is for."""
    for count, gain in ((3, 0.05), (5, -0.04), (8, 0.03), (2, -0.02)):
        luck = 0.6 + 0.1 * normal(generator, count)
        b = luck + 0.01 * normal(generator, count)
        a = luck + gain + 0.02 * normal(generator, count)
        a[0] = b[0] - 0.7 * gain  # a seed where the other method is better
        yield [round(x, 3) for x in a.tolist()], [round(x, 3) for x in b.tolist()]


def paired_interval(a, b):
    """Two lists of n accuracies -> (mean of a - b, half the width of its 95% interval)."""
    d = np.subtract(a, b)
    t = stats.t.ppf(0.975, len(d) - 1)
    error = d.std(ddof=1) / math.sqrt(len(d))  # of the mean
    return float(d.mean()), float(t * error)


def interval_ends(a, b):
    """Two lists of n accuracies -> the ends of that interval, the lower one first."""
    middle, half = paired_interval(a, b)
    return middle - half, middle + half


def _paired_in_torch(a, b):
    d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    return d.mean(), d.std() / len(d) ** 0.5 * float(stats.t(df=len(d) - 1).ppf(1 - 0.05 / 2))


def _paired_by_hand(a, b):
    n = len(a)
    d = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(d) / n
    variance = sum((x - mean) ** 2 for x in d) / (n - 1)
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=math.sqrt(variance / n))
    return mean, (high - low) / 2


OF_THE_PAIR = ("the mean alone", "the ends")  # mistakes of (mean, half) that the ends of the interval don't know
paired_difference = Check(
    name="3.5 a paired difference with its interval", reference=paired_interval, cases=_paired_cases,
    close=Closeness(rtol=2e-3, atol=1e-6), rights=(_paired_in_torch, _paired_by_hand),
    wrongs=(
        Wrong("turned around", change=("subtract(a, b)", "subtract(b, a)"),
            hint="You subtract a from b: the difference asked for is a - b, positive where a is better."),
        Wrong("not paired", change=("d.std(ddof=1)", "np.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1))"),
            also=((("d.std(ddof=1)", "np.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1))"),
            ("len(d) - 1", "2 * len(d) - 2")), ("d.std(ddof=1)", "(np.std(a, ddof=1) + np.std(b, ddof=1))"),
            ("d.std(ddof=1)", "(np.std(a, ddof=1) - np.std(b, ddof=1))")), hint="""You treat the two as independent
            samples. Seed i drew the same labels for both, so take the difference seed by seed first, and then the
            spread of these differences: the luck that both share cancels."""),
        Wrong("1.96 instead of t", change=("stats.t.ppf(0.975, len(d) - 1)", "1.96"),
            also=(("stats.t.ppf(0.975, len(d) - 1)", "stats.norm.ppf(0.975)"),
            ("stats.t.ppf(0.975, len(d) - 1)", "2.0")),
            hint="""A fixed factor such as 1.96 is for a spread that is known, or for many seeds. With few, the spread
            is itself uncertain, and Student's t is wider: stats.t.ppf(0.975, n - 1)."""),
        Wrong("one-sided quantile", change=("0.975", "0.95"), hint="""You take the 95% quantile of t, which leaves 5% on
            each side, and so 90% in the middle. For 95% in the middle leave 2.5% on each side: the 97.5% quantile."""),
        Wrong("n degrees of freedom", change=("len(d) - 1", "len(d)"), hint="""You use n degrees of freedom: the mean
            was estimated from the same n differences, which leaves n - 1."""),
        Wrong("standard deviation of the population", change=("ddof=1", "ddof=0"), hint="""Your standard deviation
            divides by n (NumPy's default), and is too small for few seeds: divide by n - 1, which is ddof=1."""),
        Wrong("not divided by the root of n", change=(" / math.sqrt(len(d))", ""),
            hint="""This is the spread of single differences. The mean of n of them is surer than one: divide the
            standard deviation by the square root of n."""),
        Wrong("divided by n", change=("math.sqrt(len(d))", "len(d)"),
            hint="You divide the standard deviation by n: the mean's uncertainty shrinks with the square root of n."),
        Wrong("variance instead of deviation", change=("std", "var"),
            hint="You use the variance where the standard deviation belongs: take its square root."),
        Wrong("no t", change=("t * error", "error"), hint="""This is the standard error alone. Times Student's t,
            stats.t.ppf(0.975, n - 1), it becomes half the 95% interval."""),
        Wrong("spread alone", change=("t * error", "d.std(ddof=1)"), also=(("t * error", "d.std()"),),
            hint="""This is the standard deviation of single differences. For the interval of their mean, divide it by
            the square root of n, and multiply by Student's t."""),
        Wrong("1.96, and the spread of the population", change=(("stats.t.ppf(0.975, len(d) - 1)", "1.96"),
            ("ddof=1", "ddof=0")), hint="""Two things make your interval too narrow: the standard deviation divides by n
            (it needs ddof=1), and 1.96 stands where Student's t belongs."""),
        Wrong("spread of one method", change=("d.std(ddof=1)", "np.std(a, ddof=1)"),
            also=(("d.std(ddof=1)", "np.std(b, ddof=1)"),),
            hint="Your spread is that of one method's own accuracies: take it of the differences a - b."),
        Wrong("median", change=("d.mean()", "np.median(d)"),
            hint="You return the median of the differences; the mean is asked for, and the interval is the mean's."),
        Wrong("the mean alone", change=("float(d.mean()), float(t * error)", "float(d.mean())"),
            hint="You return the mean alone: two numbers are asked for, (mean, half)."),
        Wrong("the whole width", change=("t * error", "2 * t * error"), hint="""The second number is the whole width of
            the interval: half of it is asked for, so that one can write mean ± half."""),
        Wrong("the ends", change=("d.mean()), float(t * error)", "d.mean() - t * error), float(d.mean() + t * error)"),
            hint="You return the two ends of the interval: the mean and the half-width are asked for, (mean, half)."),
        Wrong("absolute differences", change=("np.subtract(a, b)", "np.abs(np.subtract(a, b))"),
            hint="You take absolute differences, so that a seed where a is worse counts for a. Keep the sign."),
        Wrong("percentage points", change=("np.subtract(a, b)", "100 * np.subtract(a, b)"),
            hint="You multiplied by 100: accuracies are in [0, 1] here, and so is their difference."),
        Wrong("relative difference", change=("np.subtract(a, b)", "np.subtract(a, b) / b"),
            hint="You divide by b: a difference in accuracy is asked for, not a ratio."),
    ),
    hints=(
        "Which two numbers belong together? Those of the same seed: both methods had the same labelled pictures.",
        """First d = a - b, seed by seed. The half-width is t times the standard error of the mean of d, and the
        standard error is the standard deviation (with n - 1) over the square root of n.""",
        """d = np.subtract(a, b); mean = d.mean(); half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) /
        math.sqrt(len(d)).""",
    ),
    praise="If the interval doesn't hold 0, the seeds alone don't explain the difference.",
)


def _knn_cases(generator: torch.Generator) -> Iterator[tuple]:
    sizes = [(12, 2, 5, 3, 4, 0.5), (30, 7, 6, 4, 9, 0.2), (20, 4, 3, 6, 8, 1.5), (9, 5, 7, 2, 9, 0.7)]
    for count, queries, dim, classes, k, temperature in sizes:
        bank = normal(generator, count, dim) * uniform(generator, count, 1, low=0.3, high=2.3)
        labels, asked = whole(generator, classes, count), normal(generator, queries, dim)
        yield bank, labels, asked, classes, k, temperature


def weighted_vote(bank, labels, queries, classes, k, temperature):
    """bank (N, d), labels (N,), queries (M, d) -> each class's share of the k nearest's votes (M, classes)."""
    similarity = functional.normalize(queries, dim=1) @ functional.normalize(bank, dim=1).T  # (M, N)
    nearest, index = similarity.topk(k, dim=1)  # (M, k)
    weights = (nearest / temperature).softmax(dim=1)  # (M, k)
    return torch.zeros(len(queries), classes).scatter_add_(1, labels[index], weights)


def _knn_loop(bank, labels, queries, classes, k, temperature):
    rows = []
    for query in queries:
        cosine = functional.cosine_similarity(bank, query[None], dim=1)
        best = cosine.argsort(descending=True)[:k]
        scores = torch.zeros(classes)
        for i in best.tolist():
            scores[labels[i]] += (cosine[i] / temperature).exp()
        rows.append(scores / scores.sum())
    return torch.stack(rows)


def _knn_one_hot(bank, labels, queries, classes, k, temperature):
    a, b = queries / queries.norm(dim=1, keepdim=True), bank / bank.norm(dim=1, keepdim=True)
    cosine, index = torch.sort(torch.einsum("md,nd->mn", a, b), dim=1, descending=True)
    weights = torch.exp((cosine[:, :k] - 1) / temperature)
    votes = functional.one_hot(labels, classes).float()[index[:, :k]]
    scores = (weights[:, :, None] * votes).sum(dim=1)
    return scores / scores.sum(dim=1, keepdim=True)


knn_vote = Check(
    name="3.6 weighted nearest neighbours", reference=weighted_vote, cases=_knn_cases,
    close=Closeness(rtol=1e-3, atol=1e-5), rights=(_knn_loop, _knn_one_hot),
    wrongs=(
        Wrong("not normalized", change=(("functional.normalize(queries, dim=1)", "queries"),
            ("functional.normalize(bank, dim=1)", "bank")), also=(("functional.normalize(bank, dim=1)", "bank"),
            ("functional.normalize(queries, dim=1)", "queries")),
            hint="""You compare with a dot product in which the length of a feature vector counts as well. For the
            cosine, divide both queries and bank by their lengths first (functional.normalize, dim=1)."""),
        Wrong("normalized along the batch", change=(("(queries, dim=1)", "(queries, dim=0)"),
            ("(bank, dim=1)", "(bank, dim=0)")), hint="""You normalize along dim=0, each feature over all images. The
            cosine needs each image's vector at length 1: dim=1."""),
        Wrong("Euclidean distance",
            change=("functional.normalize(queries, dim=1) @ functional.normalize(bank, dim=1).T",
            "-torch.cdist(queries, bank)"), hint="""You compare by Euclidean distance of the features as they are: the
            cosine is asked for, so normalize both sides and take the dot product."""),
        Wrong("every vote counts the same",
            change=("(nearest / temperature).softmax(dim=1)", "torch.full_like(nearest, 1 / k)"),
            also=(("(nearest / temperature).softmax(dim=1)", "torch.ones_like(nearest)"),), hint="""Each of your k
            neighbours has the same vote. Weigh it by exp(similarity / temperature): the nearer, the more."""),
        Wrong("weighed by the similarity itself",
            change=("(nearest / temperature).softmax(dim=1)", "nearest / nearest.sum(dim=1, keepdim=True)"),
            also=(("(nearest / temperature).softmax(dim=1)", "nearest"), (".softmax(dim=1)", "")),
            hint="You weigh by the similarity itself, which may be negative: exp(similarity / temperature) never is."),
        Wrong("temperature left out", change=(" / temperature", ""),
            hint="The temperature has no effect on your weights: divide the similarity by it before exp."),
        Wrong("multiplied by the temperature", change=("/ temperature", "* temperature"), hint="""You multiply by the
            temperature: it divides. A low temperature makes the nearest neighbour count most."""),
        Wrong("weights shared out among queries", change=("softmax(dim=1)", "softmax(dim=0)"), hint="""Your softmax runs
            along dim=0, over the queries. Each query shares its votes out among its own neighbours: dim=1."""),
        Wrong("the nearer, the less", change=("nearest / temperature", "-nearest / temperature"),
            hint="Among the k neighbours the less similar weigh more: there is a minus too much in the exponent."),
        Wrong("distance of the normalized",
            change=("functional.normalize(queries, dim=1) @ functional.normalize(bank, dim=1).T",
            "-torch.cdist(functional.normalize(queries, dim=1), functional.normalize(bank, dim=1))"),
            hint="""Your neighbours are right, but you weigh them by a Euclidean distance: the cosine similarity belongs
            into the exponent."""),
        Wrong("the farthest", change=("topk(k, dim=1)", "topk(k, dim=1, largest=False)"),
            hint="""You take the k least similar: a distance is small where things are near, but a similarity is large.
            topk takes the largest by default."""),
        Wrong("the nearest left out", change=("index = similarity.topk(k, dim=1)",
            "index = (found[:, 1:] for found in similarity.topk(k + 1, dim=1))"),
            hint="""You drop the nearest neighbour, as one does where a query is in the bank itself. These queries are
            other images: all k nearest vote."""),
        Wrong("all neighbours vote", change=("topk(k,", "topk(len(bank),"),
            hint="All images of the bank vote; only the k most similar ones should: similarity.topk(k, dim=1)."),
        Wrong("votes overwritten", change=("scatter_add_", "scatter_"),
            also=(("return torch.zeros(len(queries), classes).scatter_add_(1, labels[index], weights)",
            "scores = torch.zeros(len(queries), classes); rows = torch.arange(len(queries))[:, None]; "
            "scores[rows, labels[index]] += weights; return scores"), (("scatter_add_", "scatter_"), ("return ", "votes = "),
            (", weights)", ", weights); return votes / votes.sum(dim=1, keepdim=True)"))),
            hint="""When several neighbours have the same class, only one of their votes survives: scores[rows, classes]
            += weights (and scatter_) write to each place once. scatter_add_ adds them all."""),
        Wrong("softmax over all, then the nearest",
            change=(("similarity.topk", "(similarity / temperature).softmax(dim=1).topk"),
            ("(nearest / temperature).softmax(dim=1)", "nearest")),
            hint="""Your rows don't sum to 1: you take the softmax over all images, and keep k of them. Choose the k
            nearest first, then share the votes out among them."""),
        Wrong("not shared out", change=("softmax(dim=1)", "exp()"),
            hint="""The votes are right, but they don't sum to 1 in each row: divide each row by its sum, or take the
            softmax of similarity / temperature over the k neighbours."""),
        Wrong("softmax of the sums", change=((".softmax(dim=1)", ".exp()"),
            (", weights)", ", weights).softmax(dim=1)")), hint="""You take a softmax of the summed votes, which
            exponentiates them a second time. Divide each row by its sum instead."""),
        Wrong("places instead of classes", change=("classes).scatter_add_(1, labels[index], weights)",
            "max(classes, len(bank))).scatter_add_(1, index, weights)[:, :classes]"), hint="""topk returns places in the
            bank, and you add the votes there. labels[index] turns places into classes."""),
        Wrong("the winner alone", change=(", weights)", ", weights).argmax(dim=1)"), hint="""You return the winning
            class; the scores of all classes are asked for, (M, classes). Whoever calls takes the argmax."""),
    ),
    hints=(
        """Three steps: the similarity of every query with every image of the bank, (M, N); the k largest in each row;
        and their votes, added up by class.""",
        """The cosine is the dot product of vectors of length 1. similarity.topk(k, dim=1) gives values and places, and
        labels[places] the classes. The weights are the softmax of values / temperature over the k neighbours.""",
        "torch.zeros(len(queries), classes).scatter_add_(1, labels[index], (nearest / temperature).softmax(dim=1))",
    ),
    praise="No training at all: a good first look at any backbone.",
)
