"""Runs of the fine-tuning experiments: what their scores depend on."""

from dataclasses import replace

from ram_models.experiments.paper_arms import IG, MAC
from ram_models.experiments.study.config import Block, Pretraining, Study
from ram_models.experiments.study.runs import Job, made_with
from ram_models.training.config import Compute

JOB = Job(Block(Pretraining(0), 10), MAC, ("a",), 0.001)


def test_runs_of_other_lengths_rates_or_layers_are_other_runs():
    study = Study("table6")
    others = [replace(JOB, arm=replace(MAC, length=4.0)), replace(JOB, lr=0.003), replace(JOB, layers=("a", "b"))]
    assert len({made_with(study, job) for job in (JOB, *others)}) == 4
    assert made_with(study, JOB) == made_with(study, replace(JOB, arm=IG))


def test_runs_at_other_rates_have_other_keys():
    assert JOB.key == ("masked-0", 10, "MAC", 0.001)
    assert replace(JOB, lr=0.003).key != JOB.key


def test_rates_of_other_arms_do_not_matter():
    assert made_with(Study("table6", tuned={"IG": 0.1}), JOB) == made_with(Study("table6"), JOB)


def test_runs_of_another_precision_are_other_runs():
    of = {p: made_with(Study("table6", compute=Compute(precision=p)), JOB) for p in ("fp32", "bf16")}
    assert of["fp32"] == made_with(Study("table6"), JOB) != of["bf16"]
