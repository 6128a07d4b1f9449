"""Texts: what is read from source, how it is split, and that every method can be asked about a language model."""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertModel

from ram_models.experiments.layerbench import challengers, controls, docstrings, rankings, texts
from ram_models.experiments.layerbench.methods import METHODS, choose
from ram_models.experiments.layerbench.networks import NETWORKS
from ram_models.experiments.layerbench.texts import TASKS, Texts

SOURCE = '''
def {name}(a):
    """{summary}

    A second paragraph that nobody reads here.

    Parameters
    ----------
    a : array_like
        The values {name} looks at, one by one. Short.
    b : int
        How many of the {name} values it skips.

    Returns
    -------
    out : ndarray
        The sum of all {name} values that it saw.

    Notes
    -----
    This {name} goes on for as long as it must.
    """


def _hidden():
    """Nobody can see what this private one does."""
'''

BUILT_IN = [*rankings.RANKED, *challengers.FILLERS, challengers.KERNEL_GREEDY, controls.ADAPTERS, "norms and biases"]


def clear():
    for cached in (
        docstrings.by_package,
        docstrings.by_section,
        docstrings._docstrings,
        texts._split,
        texts._classifier,
    ):
        cached.cache_clear()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Source of four small packages in place of the real ones."""
    for package in docstrings.PACKAGES:
        (tmp_path / package / "tests").mkdir(parents=True)
        (tmp_path / package / "tests" / "test_it.py").write_text(SOURCE.format(name="t", summary="A test of it all."))
        for number in range(40):
            summary = f"Compute {package} number {number} of the words in {package[::-1]} at once."
            text = SOURCE.format(name=f"{package}_{number}", summary=summary)
            (tmp_path / package / f"m{number}.py").write_text(text)
        (tmp_path / package / "same.py").write_text(SOURCE.format(name="same", summary="Return the very same thing."))
    clear()
    monkeypatch.setattr(docstrings, "files_of", lambda package, install: tmp_path / package)
    yield
    clear()


@pytest.fixture
def network(packages, monkeypatch):
    """A small language model with made-up tokens."""
    config = BertConfig(vocab_size=200, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    config.intermediate_size, config.hidden_dropout_prob, config.attention_probs_dropout_prob = 24, 0.0, 0.0

    def build():
        torch.manual_seed(0)
        return BertModel(config, add_pooling_layer=False).eval()

    def tokenize(sentences, length):
        rows = torch.zeros(len(sentences), length, dtype=torch.int64)
        for row, sentence in zip(rows, sentences, strict=True):
            words = [3 + sum(map(ord, word)) % 190 for word in sentence.split()][:length]
            row[: len(words)] = torch.tensor(words)
        return rows

    monkeypatch.setattr(texts, "tokenize", tokenize)
    return replace(NETWORKS["minilm"], build=build, batch=8, precision="float32")


@pytest.mark.usefixtures("packages")
def test_the_first_sentence_of_a_docstring_has_its_package_as_class():
    found = docstrings.by_package()
    assert len(found) == 160
    assert found[0].owner == "numpy_0"
    assert found[0].text == "Compute  number 0 of the words in ypmun at once.", "the package itself is not told"
    assert {example.label for example in found} == {0, 1, 2, 3}
    assert "Return the very same thing." not in {example.text for example in found}, "it stands in four classes"


@pytest.mark.usefixtures("packages")
def test_a_sentence_has_its_section_as_class():
    found = [example for example in docstrings.by_section() if example.owner == "scipy_7"]
    assert [(example.label, example.text) for example in found] == [
        (0, "Compute scipy number 7 of the words in ypics at once."),
        (1, "The values scipy_7 looks at, one by one."),
        (1, "How many of the scipy_7 values it skips."),
        (2, "The sum of all scipy_7 values that it saw."),
        (3, "This scipy_7 goes on for as long as it must."),
    ]


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("task", TASKS)
def test_texts_about_one_function_are_in_one_split(task):
    splits = [{example.owner for texts_ in texts._split(task, name) for example in texts_} for name in texts.PARTS]
    assert all(splits)
    assert sum(map(len, splits)) == len(set.union(*splits))


@pytest.mark.parametrize("task", TASKS)
def test_the_last_layer_is_fitted_beforehand(network, task):
    problem = Texts().problem(network, task, 10)
    first, second = problem.build(), problem.build()
    assert first is not second
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    quality = Texts().test(task)
    fitted = quality(first)
    torch.nn.init.zeros_(first.head.weight)
    assert quality(first) < fitted


def test_all_that_is_trained_sees_the_same_texts(network):
    problems = [Texts().problem(network, "section", seed) for seed in (10, 10, 11)]
    first, again, other = (problem.batch(3) for problem in problems)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[1].tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_chooses_layers_of_a_language_model(network, name):
    method, problem = METHODS[name], Texts().problem(network, "section", 10)
    if name == "mac_loss":
        assert not method.applies(problem)
        return
    choice = choose(method, problem, 0.2, method.score(problem) if method.score else None)
    assert 0 < choice.apply(problem.build()) <= 0.2 * problem.total
