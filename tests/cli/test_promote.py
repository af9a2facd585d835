import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from soarctl.ledger import Ledger

INSPECTED = """\
promotion 1, at outer step 2
  window      +0.0000  +0.1250: mean +0.0625 > tau 0.01
  datasets    +0.0000  +0.2500*: dataset 1 is the best
  its gains   +0.2500*  +0.5000  +0.0000: student 0 is the median
  on Q_R      0.0000 before practice, 0.2500 after
  all train   0.0000 before, 0.2500 after (greedy)
  2 questions, 1 of 2 answers right
       0  right  CAT | up  ->  DBU
       1  wrong  DOG | flip bump  ->  QDG   (is PDG)

"""

NOTHING = [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]


def test_a_promotion_is_shown_with_its_reason_its_student_and_its_questions(
    small_run: Path, soarctl: Callable[..., Any]
) -> None:
    ran = soarctl("promote", "--inspect", str(small_run))
    assert (ran.code, ran.out) == (0, INSPECTED)


def test_json_has_one_object_per_promotion(small_run: Path, soarctl: Callable[..., Any]) -> None:
    [stage] = json.loads(soarctl("promote", "--inspect", str(small_run), "--json").out)
    assert (stage["stage"], stage["step"], stage["dataset"], stage["repeat"]) == (1, 2, 1, 0)
    assert stage["window"] == [0.0, 0.125]
    assert stage["gains_R"] == {"0": 0.25, "1": 0.5, "2": 0.0}
    assert (stage["train_before"], stage["train_after"]) == ({"0": 0.0}, {"0": 0.25})
    assert stage["questions"][1]["solution"] == {"answer": "PDG", "correct": False}


def test_a_promotion_is_shown_where_a_repeat_before_the_promoted_one_was_lost(
    small_run: Path, soarctl: Callable[..., Any]
) -> None:
    with Ledger.open(small_run) as ledger:
        ledger.rows("DELETE FROM students WHERE step = 2 AND dataset = 1 AND repeat = 0")
        ledger.put_lost_students(2, {(1, 0): "out of memory"})
        ledger.rows("UPDATE baselines SET repeat = 2 WHERE stage = 1")
    shown = soarctl("promote", "--inspect", str(small_run)).out
    assert "  its gains   +0.5000  +0.0000*: student 2 is the median\n" in shown
    assert "  on Q_R      0.0000 before practice, 0.0000 after\n" in shown


def test_a_student_promoted_in_the_last_step_was_never_measured_as_a_baseline(
    tmp_path: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    gains = [[[0.0] * 3, [0.0] * 3], [[0.0] * 3, [0.25] * 3]]
    run = write_run(tmp_path / "run", gains=gains, outer={"steps": 2})
    assert (
        "  all train   0.0000 before, not measured before the run ended (greedy)\n"
        in soarctl("promote", "--inspect", str(run)).out
    )


def test_without_a_promotion_the_best_window_is_named(
    tmp_path: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    gains = [*NOTHING, [[0.0] * 3, [0.25, 0.0, -0.2]], *NOTHING]  # the mean reward of step 2 is 0.05 / 3 / 2
    ran = soarctl("promote", "--inspect", str(write_run(tmp_path / "run", gains=gains)))
    assert ran.code == 0
    assert ran.out == (
        "small: no promotion in 3 of 4 outer steps\n"
        "  the best mean over 2 steps was +0.0042, at step 2; a promotion needs more than 0.01\n"
    )


def test_before_the_window_is_full_no_mean_is_named(
    tmp_path: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    ran = soarctl("promote", "--inspect", str(write_run(tmp_path / "run", gains=NOTHING)))
    assert ran.out == "small: no promotion in 1 of 4 outer steps; a promotion needs 2 of them\n"


def test_a_domain_that_is_not_installed_does_not_keep_people_from_looking(
    small_run: Path, soarctl: Callable[..., Any]
) -> None:
    with Ledger.open(small_run) as ledger:
        spec = ledger.facts["spec"]
        ledger.set_facts({"spec": spec | {"domain": {"plugin": "elsewhere"}}})
    shown = soarctl("promote", "--inspect", str(small_run)).out.splitlines()
    assert shown[6] == "  2 questions"
    assert shown[8] == "       1  -      DOG | flip bump  ->  QDG"
    assert shown[-1] == 'whether answers are right is not known: no domain is called "elsewhere"'


def test_an_unknown_stage_is_refused(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    for action in (["--inspect"], ["--export-student", "student"]):
        ran = soarctl("promote", *action, "runs/small", "--stage", "2")
        assert ran.code == 2
        assert ran.err == "error: runs/small: no promotion 2 in this run\n  this run has made one, stage 1\n"


def test_promote_alone_says_what_it_can_do(small_run: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("promote", str(small_run))
    assert ran.code == 2
    assert ran.err == (
        "error: soarctl promote: nothing to do\n  --inspect shows promotions; --export-student DIR writes one\n"
    )


@pytest.fixture
def toy_run(tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """The small run, made with the trainer that needs no torch."""
    metadata = tmp_path / "packages" / "soarctl_toy-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: soarctl-toy\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[soarctl.trainers]\ntoy = soarctl.testing:ToyTrainer\n")
    monkeypatch.syspath_prepend(str(metadata.parent))
    run = write_run(folder / "runs" / "toy", trainer={"plugin": "toy"})
    with Ledger.open(run) as ledger:
        ledger.set_facts({"model": {"base": "toy", "weights_sha256": "toy"}})
    return run


def test_a_promoted_student_is_exported_by_its_trainer(toy_run: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("promote", "--export-student", "out/student", "runs/toy")
    assert (ran.code, ran.out) == (0, "the student of promotion 1 is in out/student, as a PEFT adapter\n")
    assert load_file("out/student/policy.safetensors")["layer.lora_A"].tolist() == [[1.0, 1.0]]
    assert [path.name for path in Path("out").iterdir()] == ["student"]


def test_an_export_overwrites_nothing(toy_run: Path, soarctl: Callable[..., Any]) -> None:
    Path("student").mkdir()
    Path("student/notes").write_text("mine")
    ran = soarctl("promote", "--export-student", "student", "runs/toy")
    assert ran.code == 2
    assert ran.err == ("error: student: something stands here already\n  name a directory that does not exist yet\n")


def test_damaged_weights_are_found_before_a_model_is_loaded(
    folder: Path, small_run: Path, soarctl: Callable[..., Any]
) -> None:
    weights = small_run / "promotions" / "stage-01" / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    ran = soarctl("promote", "--export-student", "student", "runs/small")
    assert ran.code == 2
    assert ran.err == (
        "error: runs/small/promotions/stage-01/policy.safetensors: "
        "the content does not have the hash of the manifest: damaged or altered\n"
    )
    assert not Path("student").exists()


def test_a_student_is_not_exported_for_another_base_model(toy_run: Path, soarctl: Callable[..., Any]) -> None:
    with Ledger.open(toy_run) as ledger:
        ledger.set_facts({"model": {"base": "toy", "weights_sha256": "other"}})
    ran = soarctl("promote", "--export-student", "student", "runs/toy")
    assert ran.code == 2
    assert ran.err == (
        "error: model.base: package:soarctl_letters/model is not the model that the student was trained on\n"
        "  its weights had the hash other, now toy\n"
    )


def test_without_a_promotion_there_is_no_student(
    folder: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    write_run(folder / "runs" / "none", gains=NOTHING)
    ran = soarctl("promote", "--export-student", "student", "runs/none")
    assert ran.code == 2
    assert ran.err == "error: runs/none: no promotion 1 in this run\n  this run has made no promotion\n"
