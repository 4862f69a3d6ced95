"""The outputs of a network that ends in a softmax or sigmoids are read as probabilities."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from car_analyzer import CarAnalyzer
from car_analyzer_export.errors import SpecError, VerificationError
from car_analyzer_export.export import export
from car_analyzer_export.onnx_model.verify import read_answers, torch_logits, torch_outputs
from car_analyzer_export.pictures import generated
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import HeadPlan, NetworkPlan, Plan, Spec
from car_analyzer_server import Server, Settings
from tests.conftest import decided

from . import endings
from .zoo import seeded

if TYPE_CHECKING:
    import numpy.typing as npt

pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings(r"ignore:(?s).*torch\.jit\.:DeprecationWarning")]

SIZE = 64
PIXELS = np.stack([generated(seed, (SIZE, SIZE)) for seed in range(8)])
CLASSES = ["clean_intact", "clean_damaged", "dirty_intact", "dirty_damaged"]
TWO, THREE = ["no", "yes"], ["good", "worn", "flat"]


def network_table(folder: Path, ending: str, classes: int, *, shift: float = 0, **spec: Any) -> dict[str, Any]:
    network = seeded(lambda: endings.Ending(ending, classes), 5)
    # Logits of both signs, and some so large that their probability is 1 in float32.
    network.head.weight.data *= 4
    network.head.bias.data += shift
    file = folder / f"{ending}_{classes}.pth"
    torch.save(network.state_dict(), file)
    architecture = f"{endings.__file__}:Ending"
    return {"weights": file, "architecture": architecture, "kwargs": {"ending": ending, "classes": classes}, **spec}


def plan_of(**tables: Any) -> Plan:
    return plan_export(decided(Spec.from_values({"photo_size": SIZE, **tables}, "test")), trust_pickle=True)


def plan_head(folder: Path, ending: str, labels: list[str], classes: int, **spec: Any) -> tuple[HeadPlan, NetworkPlan]:
    table = network_table(folder, ending, classes, labels=labels, **spec)
    ((head, network),) = plan_of(heads={"state": table}).heads()
    return head, network


def own_and_read(head: HeadPlan, network: NetworkPlan) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The outputs of a network for the pictures, and each label's probability in the client."""
    outputs = torch_outputs(network, PIXELS)
    answers = read_answers(head, torch_logits(head, outputs))
    return head.pick(outputs).numpy(), np.array([list(answer.probabilities.values()) for answer in answers])


@pytest.mark.parametrize(
    ("ending", "classes", "spec"),
    [
        ("softmax", 2, {}),
        ("softmax", 3, {}),
        ("softmax", 2, {"activation": "softmax"}),
        ("softmax_module", 2, {}),
        ("softmax_reshaped", 2, {}),
        ("softmax_turned", 2, {}),
        ("softmax_dropout", 2, {}),
        ("softmax_clamped", 2, {}),
        ("softmax_by_hand", 2, {}),
        ("softmax_by_hand", 3, {"activation": "softmax"}),
        ("softmax_averaged", 2, {}),
    ],
)
def test_a_softmax_is_found(ending: str, classes: int, spec: dict[str, str], tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, ending, THREE if classes == 3 else TWO, classes, **spec)
    assert (head.probabilities, head.activation) == (True, "softmax")
    by_values = ending in ("softmax_by_hand", "softmax_averaged")
    said = "is between 0 and 1 for every test picture, and is read as" if by_values else "the network ends in a softmax"
    assert [said in note for note in network.notes] == [True]
    own, read = own_and_read(head, network)
    assert own.max() > 0.95 > 0.2 > own[:, -1].min()
    np.testing.assert_allclose(read, own, atol=2e-6)


@pytest.mark.parametrize("ending", ["sigmoid", "sigmoid_squeezed", "sigmoid_of_the_other"])
def test_one_sigmoid_is_found(ending: str, tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, ending, TWO, 1)
    assert (head.probabilities, head.activation) == (True, "sigmoid")
    assert "the network gives one probability, read as that of 'yes' (by the spec)" in network.notes[-1]
    own, read = own_and_read(head, network)
    assert own.min() < 0.5 < own.max()
    np.testing.assert_allclose(read, np.hstack([1 - own, own]), atol=2e-6)


def test_sigmoids_of_several_labels_are_found(tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, "sigmoid", THREE, 3, activation="multilabel")
    assert head.probabilities
    assert not any("Warning" in note for note in network.notes)
    own, read = own_and_read(head, network)
    np.testing.assert_allclose(read, own, atol=2e-6)


def test_sigmoids_of_labels_that_exclude_each_other_come_with_a_warning(tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, "sigmoid", THREE, 3)
    assert head.probabilities
    assert any("do not add up to 1" in note and 'activation = "multilabel"' in note for note in network.notes)
    own, read = own_and_read(head, network)
    np.testing.assert_allclose(read, own / own.sum(axis=1, keepdims=True), atol=2e-6)


def test_a_probability_and_its_complement_are_found(tmp_path: Path) -> None:
    table = network_table(tmp_path, "sigmoid_and_the_other", 1, labels=TWO)
    ((head, network),) = plan_of(heads={"state": table}).heads()
    assert (head.probabilities, head.activation) == (True, "softmax")
    own, read = own_and_read(head, network)
    np.testing.assert_allclose(read, own, atol=2e-6)


@pytest.mark.parametrize(("ending", "classes"), [("plain", 2), ("plain", 1), ("log_softmax", 2), ("clamped", 2)])
def test_logits_stay_logits(ending: str, classes: int, tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, ending, TWO, classes)
    assert not head.probabilities
    assert not any("between 0 and 1" in note for note in network.notes)
    outputs = torch_outputs(network, PIXELS)
    np.testing.assert_array_equal(torch_logits(head, outputs), head.pick(outputs))


@pytest.mark.parametrize("classes", [1, 2])
def test_logits_between_0_and_1_are_no_probabilities(classes: int, tmp_path: Path) -> None:
    table = network_table(tmp_path, "plain", classes, labels=TWO)
    weights = torch.load(table["weights"])
    # They even add up to 1 for every picture.
    weights["head.weight"] *= 0
    weights["head.bias"] = torch.tensor([0.4, 0.6])[-classes:]
    torch.save(weights, table["weights"])
    ((head, _),) = plan_of(heads={"state": table}).heads()
    assert not head.probabilities
    # For other pictures they are not between 0 and 1.
    head, network = plan_head(tmp_path, "small", TWO, classes)
    outputs = head.pick(torch_outputs(network, PIXELS[:1]))
    assert 0 < outputs.min() <= outputs.max() < 1
    assert not head.probabilities


@pytest.mark.parametrize(
    ("classes", "activation", "taken"),
    [(2, "softmax", "logits"), (1, "sigmoid", "probabilities"), (3, "multilabel", "probabilities")],
)
def test_ambiguous_outputs_come_with_a_warning(classes: int, activation: str, taken: str, tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, "bounded", THREE if classes == 3 else TWO, classes, activation=activation)
    assert head.probabilities == (taken == "probabilities")
    assert any("Warning" in note and f"is read as {taken}. If it is not, write" in note for note in network.notes)


def test_the_spec_overrules(tmp_path: Path) -> None:
    head, network = plan_head(tmp_path, "softmax", TWO, 2, probabilities=False)
    assert not head.probabilities
    assert "the spec says probabilities = false, but the network ends in a softmax" in network.notes[0]
    head, network = plan_head(tmp_path, "clamped", TWO, 2, probabilities=True)
    assert head.probabilities
    with pytest.raises(SpecError, match=r"says probabilities = true for head 'state', but .* values from -\d"):
        plan_head(tmp_path, "plain", TWO, 2, probabilities=True)


@pytest.mark.parametrize("ending", ["softmax", "softmax_by_hand"])
def test_a_joint_network_adds_probabilities_up(ending: str, tmp_path: Path) -> None:
    heads = {
        "dirt": {"network": "joint", "labels": ["clean", "dirty"]},
        "damage": {"network": "joint", "labels": ["intact", "damaged"]},
    }
    plan = plan_of(networks={"joint": network_table(tmp_path, ending, 4) | {"classes": CLASSES}}, heads=heads)
    (dirt, network), (damage, _) = plan.heads()
    own, read = own_and_read(dirt, network)
    np.testing.assert_allclose(read[:, 1], own[:, 2] + own[:, 3], atol=4e-6)
    own, read = own_and_read(damage, network)
    np.testing.assert_allclose(read[:, 1], own[:, 1] + own[:, 3], atol=4e-6)
    heads["damage"]["activation"] = "multilabel"
    with pytest.raises(SpecError, match="classes, which exclude each other; remove its activation"):
        plan_of(networks={"joint": network_table(tmp_path, ending, 4) | {"classes": CLASSES}}, heads=heads)


@pytest.mark.parametrize(
    ("kind", "ending", "found"),
    [
        ("whole", "softmax_module", True),
        ("whole", "sigmoid", True),
        ("script", "softmax", True),
        ("script", "softmax_averaged", True),
        ("script", "log_softmax", False),
        ("script", "plain", False),
        ("program", "softmax", True),
        ("program", "plain", False),
    ],
)
def test_programs_are_examined_too(kind: str, ending: str, found: bool, tmp_path: Path) -> None:
    network = seeded(lambda: endings.Ending(ending), 5)
    file, example = tmp_path / "network.pt", torch.zeros(2, 3, SIZE, SIZE)
    if kind == "script":
        torch.jit.trace(network, example).save(file)
    elif kind == "program":
        batch = {0: torch.export.Dim("batch")}
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=(batch,)), file)
    else:
        torch.save(network, file)
    ((head, _),) = plan_of(heads={"state": {"weights": file, "labels": TWO}}).heads()
    assert head.probabilities == found


def test_a_wrong_conversion_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides convert in the same wrong way, so only the network's own probabilities show it."""
    monkeypatch.setattr(HeadPlan, "_logits_of", lambda _self, probabilities: torch.log(probabilities))
    plan = plan_of(heads={"state": network_table(tmp_path, "sigmoid", 1, labels=TWO)})
    with pytest.raises(VerificationError, match="ONNX Runtime and PyTorch differ by"):
        export(plan, tmp_path / "repository")


def test_half_precision_keeps_probabilities_near_1_apart(tmp_path: Path) -> None:
    table = network_table(tmp_path, "sigmoid", 1, labels=TWO, shift=8)
    plan = plan_of(heads={"state": table}, precision="fp16")
    export(plan, tmp_path / "repository")
    session = onnxruntime.InferenceSession(tmp_path / "repository" / "state" / "1" / "model.onnx")
    ((head, network),) = plan.heads()
    expected = torch_logits(head, torch_outputs(network, PIXELS))
    assert ((expected > 7.7) & (expected < 13)).any()
    np.testing.assert_allclose(session.run(None, {"pixels": PIXELS})[0], expected, atol=0.3)


def test_triton_serves_the_networks_own_probabilities(tmp_path: Path, sample_photos: list[Path]) -> None:
    several = seeded(endings.Several, 6)
    several.head.weight.data *= 4
    several.head.bias.data[5] -= 4
    torch.save(several.state_dict(), tmp_path / "several.pth")
    script = seeded(lambda: endings.Ending("softmax"), 7)
    torch.jit.trace(script, torch.zeros(2, 3, SIZE, SIZE)).save(tmp_path / "script.pt")
    joint = network_table(tmp_path, "softmax", 4) | {"classes": CLASSES}
    exact = {"decoding": "exact", "resampling": "exact"}
    plan = plan_of(
        networks={
            "several": {"weights": tmp_path / "several.pth", "architecture": f"{endings.__file__}:Several", **exact},
            "joint": joint | exact,
        },
        heads={
            "dirt": {"network": "several", "output": "dirt", "labels": TWO},
            "tires": {"network": "several", "output": "tires", "labels": THREE},
            "damaged": {"network": "several", "output": "damaged", "labels": TWO, "threshold": 0.3},
            "marks": {"network": "several", "output": "marks", "labels": ["dent", "rust"], "activation": "multilabel"},
            "plain": {"network": "several", "output": "plain", "labels": TWO},
            "cleanliness": {"network": "joint"},
            "script": {"weights": tmp_path / "script.pt", "labels": TWO, **exact},
        },
    )
    export(plan, tmp_path / "repository")
    by_name = {head.name: (head, network) for head, network in plan.heads()}
    labels_given = set()
    with (
        Server(Settings(tmp_path / "repository", http_port=0, grpc_port=0, metrics_port=0)) as server,
        CarAnalyzer(server.grpc_url) as analyzer,
    ):
        for photo in sample_photos:
            with Image.open(io.BytesIO(photo.read_bytes())) as image:
                pixels = np.array([image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)])
            said: Any = torch_outputs(by_name["dirt"][1], pixels)
            classes = torch_outputs(by_name["cleanliness"][1], pixels)[0]  # type: ignore[index]
            expected = {
                "dirt": said["dirt"][0],
                "tires": said["tires"][0],
                "damaged": torch.stack([1 - said["damaged"][0], said["damaged"][0]]),
                "marks": said["marks"][0],
                "plain": said["plain"][0].softmax(0),
                "cleanliness": torch.stack([classes[0] + classes[1], classes[2] + classes[3]]),
                "script": torch_outputs(by_name["script"][1], pixels)[0],  # type: ignore[index]
            }
            analysis = analyzer.analyze(photo)
            for name, probabilities in expected.items():
                answer = analysis.heads[name]
                np.testing.assert_allclose(list(answer.probabilities.values()), probabilities, atol=1e-5)
            assert analysis.heads["damaged"].label == ("yes" if said["damaged"][0] >= 0.3 else "no")
            labels_given.add(analysis.heads["damaged"].label)
    assert labels_given == {"no", "yes"}
