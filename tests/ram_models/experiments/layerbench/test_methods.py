"""A method is a function from a problem to scores or to layers, and never trains more than its budget."""

import re
import runpy

import pytest
import torch
from torch import nn

from ram_models.experiments.layerbench import challengers, controls, rankings  # noqa: F401 - all register methods
from ram_models.experiments.layerbench.choices import Choice, fill, of_layers
from ram_models.experiments.layerbench.methods import METHODS, Method, choose, register
from ram_models.experiments.layerbench.problems import Problem
from ram_models.experiments.layerbench.training import Training

SMALL = 0.3


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 3, 3, padding=1)]
    return nn.Sequential(*layers).eval()


def pairs(step):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    return images, images / 2


@pytest.fixture
def problem():
    images, clean = pairs(99)
    samples = [{"image": i, "clean": c, "name": str(n)} for n, (i, c) in enumerate(zip(images, clean, strict=True))]
    samples += [{"image": images[0] / 3, "clean": clean[0], "name": "2"}]
    return Problem("small", "darker", 10, network, samples, pairs, Training(4, precision="float32"))


@pytest.fixture
def _own_methods():
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_trains_more_than_its_budget(name, problem):
    method = METHODS[name]
    scores = method.score and method.score(problem)
    assert scores is None or {"0", "1", "3"} <= set(scores) <= set(problem.table.names)
    chosen = {budget: choose(method, problem, budget, scores) for budget in (0.02, SMALL, 0.6)}
    trained = {budget: choice.apply(problem.build()) for budget, choice in chosen.items() if choice is not None}
    assert all(0 < count <= budget * problem.total for budget, count in trained.items())
    assert trained or name == controls.ALL


@pytest.mark.usefixtures("_own_methods")
def test_the_method_of_the_docstring_works_from_a_file(tmp_path, problem):
    text = re.search(r"::\n\n(.*?)\n\n:class:", __import__(choose.__module__, fromlist=["_"]).__doc__, re.DOTALL)[1]
    (tmp_path / "mine.py").write_text(re.sub(r"^    ", "", text, flags=re.MULTILINE))
    runpy.run_path(str(tmp_path / "mine.py"))
    scores = METHODS["largest"].score(problem)
    assert max(scores, key=scores.get) == "1"


@pytest.mark.usefixtures("_own_methods")
def test_a_method_of_layers_that_exceeds_the_budget_is_refused(problem):
    method = register(Method("everything", choose=lambda problem, budget: problem.table.names))
    with pytest.raises(ValueError, match=r"chose 1,.* more than 30% of .*return None"):
        choose(method, problem, SMALL, None)


def test_a_method_that_scores_needs_its_scores(problem):
    with pytest.raises(ValueError, match="'mac' fills budgets in the order of its scores: give `scores`"):
        choose(METHODS["mac"], problem, SMALL, None)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'mac' already: choose another name"):
        register(Method("mac", score=lambda problem: {}))


def test_a_method_scores_or_chooses():
    with pytest.raises(ValueError, match="must have one of `score` and `choose`"):
        Method("neither")


def test_random_draws_differ_and_repeat(problem):
    first, again, second = (controls.random_order(problem.drawn(draw)) for draw in (0, 0, 1))
    assert first == again
    assert first != second


def test_a_set_has_one_key_whatever_the_order():
    assert Choice(("a", "b")).key == Choice(("b", "a")).key
    assert Choice(("a", "b")).key != Choice(("a",)).key
    assert Choice(adapted=("a",), budget=3).key != Choice(("a",)).key


def test_nothing_is_chosen_where_nothing_fits(problem):
    assert fill(dict.fromkeys(problem.table.names, 1.0), problem.build(), problem.table, 1e-3) is None


def test_a_budget_is_filled_in_the_order_of_the_scores(problem):
    scores = {"0": 3.0, "1": 4.0, "2": 1.0, "3": 2.0}
    choice = fill(scores, problem.build(), problem.table, SMALL)
    assert choice.key == of_layers(problem.build(), ["0", "2"]).key, "1 is too large, 3 does not fit beside 0"


def test_norms_and_biases_hold_every_vector(problem):
    choice = choose(METHODS["norms and biases"], problem, SMALL, None)
    assert set(choice.parameters) == {"0.bias", "1.bias", "2.weight", "3.bias"}
    assert set(choose(METHODS["biases"], problem, SMALL, None).parameters) == {"0.bias", "1.bias", "3.bias"}


def test_adapters_train_nothing_else(problem):
    choice = choose(METHODS[controls.ADAPTERS], problem, 0.6, None)
    tuned = problem.build()
    trained = choice.apply(tuned)
    names = [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
    assert trained <= 0.6 * problem.total
    assert all("lora" in name for name in names)


def test_everything_is_trained_at_the_whole_budget_alone(problem):
    method = METHODS[controls.ALL]
    assert choose(method, problem, 0.5, None) is None
    assert choose(method, problem, 1.0, None).apply(problem.build()) == problem.total


def test_probes_see_crops_behind_those_of_the_runs(problem):
    assert torch.equal(problem.probe_batch(0)[0], problem.batch(problem.training.steps)[0])
    start, end = problem.build(), problem.tuned(of_layers(problem.build(), ["0"]), 2, 1e-3)
    assert not torch.equal(start[0].weight, end[0].weight)
    assert torch.equal(start[1].weight, end[1].weight)
    assert all(parameter.requires_grad for parameter in end.parameters())
