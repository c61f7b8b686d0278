"""docs/cluster.md and its two launchers: the arithmetic follows, the files parse, and every command is accepted."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from sslcourse import backbones, cli, pretext
from sslcourse.errors import CourseError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PLAN, SLURM, KUBERNETES = DOCS / "cluster.md", DOCS / "pretrain.slurm", DOCS / "pretrain-kubernetes.yaml"
COMMANDS = typer.main.get_command(cli.app).commands

# What PyTorchJob's Go types know (kubeflow/training-operator, pkg/apis/kubeflow.org/v1, pytorch_types.go and common_types.go)
FIELDS = {
    "spec": {"runPolicy", "elasticPolicy", "pytorchReplicaSpecs", "nprocPerNode"},
    "elasticPolicy": {
        "minReplicas", "maxReplicas", "rdzvBackend", "rdzvPort", "rdzvHost", "rdzvId", "rdzvConf", "standalone", "maxRestarts", "metrics",
    },
    "runPolicy": {"cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "schedulingPolicy"},
    "schedulingPolicy": {"minAvailable", "queue", "minResources", "priorityClass", "scheduleTimeoutSeconds"},
    "replica": {"replicas", "template", "restartPolicy"},
}  # fmt: skip


def text(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plan():
    """What the code on the page leaves behind, and (its output, the output shown) for each block."""
    names, outputs = {}, []
    for code, shown in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text(PLAN), re.DOTALL):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PLAN), "exec"), names)
        outputs.append((printed.getvalue(), shown))
    return names, outputs


def shell_commands(source):
    """Every torchrun or sslcourse command of a shell script, as lists of words."""
    found = []
    for line in source.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        at = next((i for i, word in enumerate(words) if word in ("torchrun", "sslcourse")), None)
        if at is not None and (at == 0 or words[0] == "srun"):
            found.append(words[at:])
    return found


def job():
    return next(document for document in yaml.safe_load_all(text(KUBERNETES)) if document["kind"] == "PyTorchJob")


def pod():
    return job()["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]


def commands():
    page = text(PLAN)
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    inline = "\n".join(code for code in re.findall(r"`((?:sslcourse|torchrun) [^`\n…]*)`", page))
    return {
        "Slurm": shell_commands(text(SLURM)),
        "Kubernetes": [pod()["containers"][0]["command"]],
        "the page": shell_commands(blocks + "\n" + inline),
    }


def accepted(words):
    """(torchrun's options or None, the course's options) of a command; an error where either refuses it."""
    launcher = None
    if words[0] == "torchrun":
        launcher = get_args_parser().parse_args(words[1:])
        assert launcher.module and launcher.training_script == "sslcourse"
        words = ["sslcourse", *launcher.training_script_args]
    name, *rest = words[1:]
    given = COMMANDS[name].make_context(name, rest).params
    if name == "pretrain":
        task = pretext.find(given["task"])
        backbones.refuse_unknown(given["backbone"])
        options = cli.options.task_options(given["option"], pretext.option_defaults(task))
        pretext.build(given["task"], backbones.build("resnet-tiny"), **options)
    return launcher, given


def test_the_code_on_the_page_prints_what_is_shown(plan):
    assert len(plan[1]) == 2
    for printed, shown in plan[1]:
        assert printed == shown


def test_the_timing_of_a_core_runs(capsys):
    (code,) = re.findall(r"```py\n(.*?)```", text(PLAN), re.DOTALL)
    exec(compile(code, str(PLAN), "exec"), {})
    assert re.fullmatch(r"\d+ files/s on one core\n", capsys.readouterr().out)


def test_every_figure_in_the_text_stands_in_an_output(plan):
    shown = " ".join(re.sub(r"\s+", " ", output) for _, output in plan[1])
    prose = re.sub(r"```.*?```", "", text(PLAN), flags=re.DOTALL)
    after = prose[prose.index("## What the figures say") : prose.index("## What changes")]
    figures = re.findall(r"`(\$?\d[^`]*)`", after)
    assert len(figures) > 12
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}", shown), f"{figure} stands in no output"
    assert f"{4 * plan[0]['parameters'] / 1e6:.0f} MB a step" in after


def test_every_command_is_one_that_torchrun_and_the_course_accept():
    found = commands()
    assert [len(found[place]) for place in ("Slurm", "Kubernetes")] == [1, 1] and len(found["the page"]) >= 5
    for words in (words for each in found.values() for words in each):
        accepted(words)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("torchrun --nproc-per-nodes=8 -m sslcourse pretrain simclr --out a", SystemExit),
        ("torchrun --standalone -m sslcourse pretrain simclr --out a --batchsize 8", Exception),
        ("sslcourse pretrain simclr --out a --option width=3", (CourseError, KeyError, TypeError)),
    ],
)
def test_a_mistyped_command_would_be_noticed(line, complaint, capsys):
    with pytest.raises(complaint):
        accepted(shell_commands(line)[0])


def test_both_launchers_train_what_the_plan_plans(plan):
    names = plan[0]
    (slurm, first), (operator, second) = (accepted(commands()[place][0]) for place in ("Slurm", "Kubernetes"))
    for given in (first, second):
        assert (given["steps"], given["batch_size"]) == (names["steps"], names["batch"])
        assert (given["backbone"], given["size"], given["stream"], given["resume"]) == ("resnet50", 224, True, True)
        assert given["batch_size"] % names["world"] == 0 and given["checkpoint_every"] == 1000
    same = ("task", "option", "learning_rate", "stem", "device")
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert slurm.nproc_per_node == operator.nproc_per_node == str(names["gpus"])


def test_the_slurm_script_is_good_shell_and_asks_for_what_is_planned(plan):
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", text(SLURM), re.MULTILINE))
    assert (int(asked["nodes"]), int(asked["gpus-per-node"])) == (plan[0]["nodes"], plan[0]["gpus"])
    assert asked["ntasks-per-node"] == "1"  # torchrun starts the processes of a node
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in text(SLURM)
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash to check the script with")
    checked = subprocess.run([bash, "-n", str(SLURM)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_kubernetes_job_has_the_operators_fields_and_no_others(plan):
    found = job()
    spec, worker = found["spec"], found["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert found["apiVersion"] == "kubeflow.org/v1" and re.fullmatch(r"[a-z0-9-]+", found["metadata"]["name"])
    assert set(spec) <= FIELDS["spec"] and set(spec["pytorchReplicaSpecs"]) <= {"Master", "Worker"}
    for name in ("elasticPolicy", "runPolicy"):
        assert set(spec[name]) <= FIELDS[name]
    assert set(spec["runPolicy"]["schedulingPolicy"]) <= FIELDS["schedulingPolicy"]
    assert set(worker) == FIELDS["replica"] and worker["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    elastic = spec["elasticPolicy"]
    assert elastic["minReplicas"] == elastic["maxReplicas"] == worker["replicas"] == plan[0]["nodes"]
    assert elastic["rdzvBackend"] == "c10d"
    assert spec["nprocPerNode"] == str(plan[0]["gpus"])  # a string, in the operator's types


def test_the_kubernetes_pod_has_its_gpus_its_shared_memory_and_its_claims(plan):
    (container,) = pod()["containers"]
    assert container["name"] == "pytorch"  # the operator looks for it
    assert container["resources"]["limits"]["nvidia.com/gpu"] == plan[0]["gpus"]
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    assert all(isinstance(variable["value"], str) for variable in container["env"])
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(volumes) == set(mounts)
    assert volumes["shared-memory"]["emptyDir"]["medium"] == "Memory" and mounts["shared-memory"] == "/dev/shm"
    claims = [document for document in yaml.safe_load_all(text(KUBERNETES)) if document["kind"] != "PyTorchJob"]
    assert [claim["metadata"]["name"] for claim in claims] == [volumes["runs"]["persistentVolumeClaim"]["claimName"]]
    assert claims[0]["spec"]["accessModes"] == ["ReadWriteMany"]
    given = accepted(container["command"])[1]
    assert given["data"] == f"folder:{mounts['images']}" and str(given["out"]).startswith(mounts["runs"])
