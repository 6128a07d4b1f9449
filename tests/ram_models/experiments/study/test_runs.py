"""Runs of the fine-tuning experiments: what their scores depend on."""

from ram_models.experiments.study.config import Block, Pretrained, Study
from ram_models.experiments.study.runs import Job, made_with


def test_runs_of_other_lengths_or_layers_are_other_runs():
    block, study = Block(Pretrained(0), 10), Study("table6")
    jobs = [Job(block, "one", ("a",)), Job(block, "one", ("a",), length=4.0), Job(block, "one", ("a", "b"))]
    assert len({made_with(study, job) for job in jobs}) == 3
    assert made_with(study, jobs[0]) == made_with(study, Job(block, "another", ("a",), length=1.0))
