"""Networks of other people's making: what they take, what they return, and where a path runs in them."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import macattr
from macattr.methods.catalogue import METHODS
from macattr.methods.samples import iterate_samples


class Recurrent(nn.Module):
    """A restoration network that runs its layers several times and returns all of its refinements, as PReNet does."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(6, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image):
        restored, steps = image, []
        for _ in range(3):
            restored = image + self.last(torch.tanh(self.first(torch.cat([image, restored], 1))))
            steps.append(restored)
        return restored, steps


class Larger(nn.Module):
    """A super-resolution network of factor 2."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 12, 3, padding=1)
        self.up = nn.PixelShuffle(2)
        self.tail = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image):
        return self.tail(torch.tanh(self.up(self.body(image))))


class Vectors(nn.Module):
    """A classifier of vectors with two outputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(7, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, features):
        hidden = torch.tanh(self.body(features))
        return {"hidden": hidden, "logits": self.head(hidden)}


class Text(nn.Module):
    """A text model of keyword arguments with a loss of its own, in the manner of Hugging Face."""

    main_input_name = "input_ids"

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.encoder = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.head = nn.Linear(6, 20)

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        hidden = self.embed(input_ids)
        for layer in self.encoder:
            hidden = torch.tanh(layer(hidden))
        mean = hidden.mean(1, keepdim=True) if attention_mask is None else hidden * attention_mask[..., None]
        logits = self.head(hidden + mean)
        out = {"logits": logits, "hidden": hidden}
        return (
            out if labels is None else out | {"loss": functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}
        )


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def made(network):
    """A network that changes its input enough for sums along a path."""
    return network.eval()


IDS = torch.arange(2, 18).reshape(2, 8)
PIXELS = torch.linspace(0, 1, 2 * 3 * 8 * 8).sin().abs().reshape(2, 3, 8, 8)


def test_a_recurrent_network_is_read_at_its_last_refinement_and_its_calls_are_said():
    network, image = made(Recurrent()), PIXELS[:1]
    chosen = {how: macattr.rank_layers(network, image, calls=how) for how in ("sum", "each", "last")}
    plain = macattr.rank_layers(network, image, output=0)
    assert chosen["sum"].values.tolist() == plain.values.tolist()
    assert chosen["sum"].dataset.attrs["output"] == "the last of 3 refinements"
    assert "2 layers run several times" in chosen["sum"].dataset.attrs["calls"]
    assert "no share of the change" in repr(chosen["sum"])
    assert chosen["sum"].dataset["calls"].values.tolist() == [3, 3]
    each, last = chosen["each"].values[0, 0], chosen["last"].values[0, 0]
    assert not torch.allclose(torch.tensor(each), torch.tensor(last))


def test_the_calls_of_a_layer_add_up_neuron_by_neuron():
    network, image = made(Recurrent()), PIXELS[:1].double()
    of = macattr.LayerConductance(network.double(), "first")
    each = of.attribute(image, objective=macattr.OutputSum(), calls="each")
    torch.testing.assert_close(each.sum(0), of.attribute(image, objective=macattr.OutputSum()))
    torch.testing.assert_close(each[-1], of.attribute(image, objective=macattr.OutputSum(), calls="last"))
    assert each.shape == (3, 1, 4, 8, 8)


@pytest.mark.parametrize("method", ["fisher", "rgn", "mac_loss", "mac"])
def test_super_resolution_takes_larger_clean_images(method):
    pairs = [(PIXELS[0], torch.rand(3, 16, 16)), {"image": PIXELS[1], "clean": torch.rand(3, 16, 16)}]
    importance = macattr.rank_layers(made(Larger()), pairs, method)
    assert (importance.values != 0).all()


def test_a_path_to_the_clean_image_needs_equal_shapes():
    with pytest.raises(
        ValueError, match=r"\(3, 16, 16\), the degraded one \(3, 8, 8\): they must be equal for the path"
    ):
        macattr.rank_layers(made(Larger()), [(PIXELS[0], torch.rand(3, 16, 16))], "conductance", path="restore")


def test_vectors_walk_lines_and_labels_make_objectives_and_losses():
    network, loader = made(Vectors()), DataLoader(TensorDataset(torch.rand(4, 7), torch.tensor([0, 1, 2, 0])), 2)
    line = macattr.rank_layers(network, loader, "conductance", objective="class")
    assert line.dataset.attrs["output"] == "'logits'"
    assert float(abs(line.dataset["input_residual"]).max()) < 0.01
    by_label = macattr.rank_layers(network, loader, "fisher")
    given = macattr.rank_layers(network, loader, "fisher", loss=functional.cross_entropy)
    torch.testing.assert_close(torch.tensor(by_label.values), torch.tensor(given.values), rtol=1e-5, atol=0)
    assert by_label.dataset.attrs["loss"] == "cross-entropy to the labels"


@pytest.mark.parametrize("objective", ["sum", "mean", "norm", "similarity", "class", "loss"])
def test_named_objectives_are_complete_along_a_line(objective):
    samples = [(torch.rand(7) + 0.5, torch.tensor(1))]
    found = macattr.rank_layers(made(Vectors()), samples, "conductance", objective=objective, n_steps=100)
    assert float(abs(found.dataset["input_residual"]).max()) < 0.02
    plain = {"sum": "OutputSum()", "mean": "OutputMean()", "norm": "OutputNorm()"}
    assert found.dataset.attrs["objective"] == plain.get(objective, objective)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "gradient magnitude needs an output of images .* choose another `objective`, such as 'class'"),
        ({"objective": "norms"}, "no objective 'norms'; did you mean 'norm'"),
        ({"objective": "norm", "output": "feat"}, r"no 'feat': it holds 'hidden' \(1, 5\), 'logits' \(1, 3\)"),
        ({"objective": "masked_loss"}, "'masked_loss' needs hidden pixels or tokens"),
        ({"objective": "loss"}, "has no target, which the objective 'loss' needs|has no 'loss'"),
        ({"objective": "norm", "calls": "first"}, "`calls` must be one of sum, each, last, got 'first'"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("as_users_run_it")
def test_what_cannot_be_read_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        macattr.rank_layers(made(Vectors()), torch.rand(1, 7), "conductance", **options)


def test_a_mask_path_says_that_it_needs_images():
    with pytest.raises(ValueError, match=r"a mask path needs images .* walk another path, such as path='line'"):
        macattr.rank_layers(made(Vectors()), torch.rand(1, 7), objective="norm")


TEXTS = {
    "positional": IDS,
    "a batch": {"input_ids": IDS},
    "single texts": [{"input_ids": row} for row in IDS],
    "lists": [{"input_ids": row.tolist()} for row in IDS],
    "a list of batches": [{"input_ids": IDS}],
}


@pytest.mark.parametrize("inputs", TEXTS.values(), ids=TEXTS)
def test_texts_walk_from_zero_embeddings_by_themselves(inputs):
    found = macattr.rank_layers(made(Text()), inputs, "conductance", objective="norm")
    assert found.dataset.attrs["at"] == "the output of 'embed'"
    assert found.values.shape == (2, 1, 4)
    assert float(abs(found.dataset["input_residual"]).max()) < 0.01


@pytest.mark.parametrize(
    "path", ["tokens", macattr.TokenMaskPath(0.5, token=1), "mask"], ids=["name", "recipe", "mask"]
)
def test_tokens_appear_group_by_group(path):
    found = macattr.rank_layers(made(Text()), {"input_ids": IDS}, path=path, objective="masked_loss", n_steps=200)
    assert float(abs(found.dataset["input_residual"]).max()) < 0.02


def test_the_model_s_own_loss_is_an_objective_and_the_loss_of_parameter_methods():
    inputs = {"input_ids": IDS, "labels": IDS}
    rankings = macattr.rank_methods(made(Text()), inputs, ["conductance", "fisher"], objective="loss")
    assert rankings["conductance"].dataset.attrs["output"] == "the model's own loss"
    assert rankings["fisher"].dataset.attrs["loss"] == "the model's own"
    assert (rankings["fisher"].values > 0).any()


def test_padding_is_never_hidden():
    mask = torch.ones_like(IDS)
    mask[:, 5:] = 0
    network = made(Text())
    (sample, _) = iterate_samples({"input_ids": IDS, "attention_mask": mask}, network)
    task = macattr.ranking.rank.task_of(network, None, macattr.Options(path="tokens", objective="norm"))
    hidden = task.trial(sample, 0, 0).token_path(macattr.TokenMaskPath(0.6)).hidden()
    assert int(hidden.sum()) == 3
    assert not hidden[:, 5:].any()


@pytest.mark.parametrize("name", ["magnitude", "depth", "random", "uniform"])
def test_methods_without_data_need_no_floats(name):
    assert macattr.rank_layers(made(Text()), {"input_ids": IDS}, name).values.shape == (1, 1, 4)


def test_globs_skip_what_never_runs_and_literal_names_do_not():
    network = made(Text())
    found = macattr.rank_layers(network, {"input_ids": IDS}, "conductance", ["enc*", "head"], objective="norm")
    assert sorted(found.dataset["layer"].values) == ["encoder.0", "encoder.1", "head"]
    with pytest.raises(ValueError, match="'encoder' is a ModuleList, which holds layers and never runs itself"):
        macattr.rank_layers(network, {"input_ids": IDS}, "conductance", "encoder", objective="norm")


def test_parameter_methods_list_no_containers():
    network = made(nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 3, 1)))
    pairs = [(image, image) for image in PIXELS]
    rankings = macattr.rank_methods(network, pairs, ["mac", "fisher"], "*")
    assert rankings["fisher"].dataset["layer"].values.tolist() == ["0.0", "1"]
    assert rankings["mac"].dataset["layer"].values.tolist() == ["0", "0.0", "0.1", "1"]


def test_a_wrapper_of_ones_own_leaves_no_trace():
    class Wrapper(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, image):
            return self.net(image)

    network = made(Larger())
    inside = macattr.rank_layers(network, PIXELS)
    outside = macattr.rank_layers(Wrapper(network).eval(), PIXELS, prefix="net")
    assert outside.ranking()["layer"].tolist() == inside.ranking()["layer"].tolist()
    assert outside.values.tolist() == inside.values.tolist()
    raw = macattr.rank_layers(Wrapper(network).eval(), PIXELS)
    rule = macattr.SelectionRule(count=2)
    assert raw.without_prefix("net.").select(rule, network).layers == inside.select(rule, network).layers
    parallel = macattr.rank_layers(nn.DataParallel(network), PIXELS)
    assert parallel.dataset.attrs["model"] == "Larger"
    assert parallel.values.tolist() == inside.values.tolist()


def test_a_path_may_walk_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, image, other):
            return self.left(image) * self.right(other)

    def both(image):
        return macattr.LinearPath((image, image.flip(-1)), (0 * image, 0 * image))

    found = macattr.rank_layers(made(Two()), PIXELS, "conductance", path=both, objective="mean")
    assert float(abs(found.dataset["input_residual"]).max()) < 1e-4  # the trapezoid is exact for products of lines


def test_an_unknown_keyword_is_named():
    with pytest.raises(ValueError, match="takes no argument 'token_type_ids', but input_ids, attention_mask, labels"):
        macattr.rank_layers(made(Text()), {"input_ids": IDS, "token_type_ids": IDS}, "magnitude")


def test_a_sample_without_anything_to_walk_names_the_remedy():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(20, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.head(self.words(ids).mean(1))

    network = made(Bare())
    with pytest.raises(ValueError, match=r"'sample 0' has no floating-point tensor .* at='words'"):
        macattr.rank_layers(network, IDS, "conductance", objective="norm")
    assert macattr.rank_layers(network, IDS, "conductance", at="words", objective="norm").values.shape == (2, 1, 2)


def test_the_attribution_classes_take_mappings_outputs_and_layers():
    network = made(Text()).double()
    of = macattr.LayerConductance(network, ["embed", "encoder.0", "head"])
    options = {"objective": macattr.OutputSum(), "output": "logits", "method": "trapezoid", "n_steps": 100}
    parts, delta = of.attribute({"input_ids": IDS}, return_convergence_delta=True, **options)
    assert [part.shape[0] for part in parts] == [2, 2, 2]
    torch.testing.assert_close(delta[0], torch.zeros(2, dtype=torch.float64), atol=1e-3, rtol=0)
    of.attribute({"input_ids": IDS}, path=macattr.TokenMaskPath(0.5, token=1), **options)
    assert float(of.input_residual.abs().max()) < 0.02
    of.attribute({"input_ids": IDS}, at="embed", baselines=macattr.Token(3), **options)
    assert float(of.input_residual.abs().max()) < 1e-3


def test_all_methods_that_do_not_need_other_weights_take_texts():
    skipped = {"mac_loss", "cka", "cosine"} | {
        name for name, m in METHODS.items() if "start_weights" in getattr(m, "options", ())
    }
    names = [name for name in METHODS if name not in skipped]
    rankings = macattr.rank_methods(
        made(Text()), {"input_ids": IDS, "labels": IDS}, names, objective="norm", n_steps=10
    )
    assert rankings.keys() == set(names)


def test_arguments_that_differ_between_samples_make_no_stale_survey():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 3, 1)

        def forward(self, image, shift):
            return self.body(image) + shift * image.square()[..., :1] + shift

    samples = [{"image": image, "forward_args": (torch.tensor(float(number)),)} for number, image in enumerate(PIXELS)]
    assert macattr.rank_layers(made(Shifted()), samples, "conductance").values.shape == (2, 1, 1)


class Sequences(nn.Module):
    """A recurrent layer of torch, which keeps weak references to its weights."""

    def __init__(self, kind, batch_first):
        super().__init__()
        self.body, self.head = kind(3, 5, batch_first=batch_first), nn.Linear(5, 2)

    def forward(self, steps):
        states, _ = self.body(steps if self.body.batch_first else steps.transpose(0, 1))
        return self.head(states[:, -1] if self.body.batch_first else states[-1])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "steps_first"])
@pytest.mark.filterwarnings("ignore:layer body.*Nodes are evaluated one at a time:UserWarning")
def test_recurrent_layers_of_torch_are_ranked_and_selected(kind, batch_first):
    network, steps = made(Sequences(kind, batch_first)), torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1))
    options = {"objective": "norm", "n_steps": 20, "loss": lambda output: output.abs().mean()}
    found = macattr.rank_methods(network, {"steps": steps}, ["conductance", "fisher", "magnitude"], **options)
    assert found["conductance"].values.shape == (2, 1, 2)
    assert abs(found["conductance"].dataset["input_residual"]).max() < 0.02
    counted = macattr.TrainableMask(("body",)).apply(network)
    assert counted.trained == sum(p.numel() for p in network.parameters() if p.requires_grad)


class Edges(nn.Module):
    """A network of graphs: nodes with a batch, edges that all of them share."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, nodes, sources, targets):
        hidden = torch.tanh(self.body(nodes))
        return self.head(hidden.index_add(1, targets, hidden[:, sources]))


@pytest.mark.parametrize("graphs", [1, 2], ids=["one", "two"])
def test_edges_may_be_keywords_or_further_arguments(graphs):
    network, (sources, targets) = made(Edges()), torch.tensor([[0, 1, 2], [1, 2, 3]])
    nodes = torch.rand(graphs, 5, 3, generator=torch.Generator().manual_seed(1))
    samples = (
        {"nodes": nodes, "sources": sources, "targets": targets},
        {"nodes": nodes, "forward_args": (sources, targets)},
    )
    options = {"objective": "norm", "n_steps": 200}  # so many that Captum's nodes make no difference
    by_name, by_position = (macattr.rank_layers(network, each, "conductance", **options).values for each in samples)
    assert by_name.shape == (graphs, 1, 2)
    assert (by_name == by_position).all()
    conductance = macattr.LayerConductance(lambda graph: network(graph, sources, targets), network.body)
    each = [conductance.attribute(graph[None], objective="norm", n_steps=200) for graph in nodes]
    assert by_name[:, 0, 0] == pytest.approx([float(values.abs().mean()) for values in each], rel=1e-3)


def test_scores_that_are_all_0_are_no_ranking():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 3, 1)).eval()
    nn.init.zeros_(network[2].weight)
    nn.init.zeros_(network[2].bias)
    options = {"objective": "sum", "loss": lambda output: 0 * output.sum()}
    for found in macattr.rank_methods(network, PIXELS[:1], ["conductance", "rgn"], **options).values():
        assert any("no ranking: the scores of all 2 layers are 0" in words for words in found.doubts)


def test_an_objective_that_stays_as_it_is_gives_no_ranking():
    network = made(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, eps=1e-12)))
    found = macattr.rank_layers(network, torch.rand(2, 6), "conductance", objective="norm", path="line", baselines=-1.0)
    assert any("no ranking: the objective changes by no more than" in words for words in found.doubts)


def test_a_network_that_detaches_is_said():
    class Detached(nn.Sequential):
        def forward(self, image):
            return self[1](self[0](image).detach())

    network = made(Detached(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)))
    found = macattr.rank_layers(network, PIXELS[:1], "conductance", objective="norm")
    assert any("no gradient reaches the input" in words for words in found.doubts)


def test_sums_that_are_not_complete_are_said_with_the_remedy():
    rough = macattr.rank_layers(made(Recurrent()), PIXELS[:1], r=0.9, n_steps=1)
    far = rough.dataset.assign(input_residual=rough.dataset["input_residual"] * 0 + 0.5)
    (words,) = macattr.LayerImportance(far).doubts
    assert "miss 50% of the objective's change" in words
    assert "raise `n_steps`, which is 1" in words
    tiny = far.assign(objective_variation=far["objective_variation"] * 0 + 1e6)
    assert "the net change is small" in macattr.LayerImportance(tiny).doubts[0]


def test_scores_that_do_not_differ_are_no_ranking():
    chain = made(nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(4)))).double()
    found = macattr.rank_layers(chain, PIXELS, "conductance", objective="sum", reduction="abs_sum")
    assert "no ranking: the scores of all 4 layers lie within" in found.doubts[0]


def test_a_label_that_the_network_has_not_is_refused():
    classifier = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    with pytest.raises(ValueError, match=r"the loss refuses the target of 'sample 0': Target 7 is out of bounds"):
        macattr.rank_layers(classifier, [{"image": torch.rand(5), "target": torch.tensor(7)}], "fisher")
