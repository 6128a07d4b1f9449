"""Networks whose weights do not lie whole in one place: sharded by FSDP2, tensor parallel, offloaded, in 4 bits."""

import multiprocessing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import accelerate
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.utils.checkpoint import checkpoint

import macattr
from macattr.layers.table import LayerTable, describe_layers
from macattr.methods.reductions import REDUCTIONS
from macattr.paths.objectives import OutputSum
from macattr.ranking.importance import LayerImportance
from macattr.ranking.run import World
from macattr.ranking.sanity import randomised
from macattr.selection.lora import adapted_layers, lora_config
from macattr.selection.trainable import TrainableMask

FORK = multiprocessing.get_context("fork")
"""Children that need not import torch again."""

OPTIONS = {"n_steps": 4, "groups": 4, "orders": 1}

METHODS = ("mac", "conductance", "attribution_patching", "magnitude", "kappa", "spectrum", "cka")


GRADIENT_METHODS = ("fisher", "rgn", "snr", "adam_gain", "adam_gain_warm", "kernel", "lca", "taylor", "faig")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.act = nn.Tanh()
        self.down = nn.Linear(16, 8)

    def forward(self, tokens):
        return tokens + self.down(self.act(self.up(self.norm(tokens))))


class Network(nn.Module):
    """Rows of an image are its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(8, 8)

    def forward(self, image):
        tokens = image.flatten(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return image + self.head(tokens).reshape(image.shape)


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def sharded() -> Network:
    model = network()
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def tensor_parallel(model: Network | None = None, mesh: DeviceMesh | None = None, *, whole: bool = False) -> Network:
    """Both blocks are split; their outputs between the two layers are whole if asked for."""
    model = model or network()
    mesh = mesh or init_device_mesh("cpu", (2,))
    for block in model.blocks:
        up = ColwiseParallel(output_layouts=Replicate()) if whole else ColwiseParallel()
        down = RowwiseParallel(input_layouts=Replicate()) if whole else RowwiseParallel()
        parallelize_module(block, mesh, {"up": up, "down": down})
    return model


@pytest.fixture
def images() -> list[torch.Tensor]:
    return list(torch.rand(3, 3, 4, 8, generator=torch.Generator().manual_seed(1)))


def in_children(size, work, folder):
    """Run ``work(rank)`` in processes of one gloo group; all must succeed."""

    def start(rank):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=size)
        work(rank)
        dist.destroy_process_group()

    children = [FORK.Process(target=start, args=(rank,)) for rank in range(size)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    alive = [child for child in children if child.is_alive()]
    for child in alive:
        child.kill()
    assert not alive, "processes are out of step"
    assert [child.exitcode for child in children] == [0] * size


def same_scores(importance: LayerImportance, other: LayerImportance) -> bool:
    return bool((importance.dataset["score"] == other.dataset["score"]).all())


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_a_network_that_fsdp_shards_is_ranked_as_in_one_process(images, tmp_path, count):
    methods = METHODS if count > 1 else METHODS[:-1]  # cka needs several images
    alone = macattr.rank_methods(network(), images[:count], methods, **OPTIONS)

    def work(rank):
        model = sharded()
        rankings = macattr.rank_methods(model, images[:count], list(alone), **OPTIONS, parts=tmp_path / "parts")
        for name, importance in rankings.items():
            assert same_scores(importance, alone[name]), name
            for key in ("model_sha256", "network_sha256", "model"):
                assert importance.dataset.attrs[key] == alone[name].dataset.attrs[key], key
            importance.save(tmp_path / f"{name} {rank}.nc")
        assert describe_layers(dict(model.named_modules()))[0].type == "Network"

    in_children(2, work, tmp_path)
    for name in alone:
        assert same_scores(LayerImportance.load(tmp_path / f"{name} 1.nc"), alone[name])


@pytest.mark.slow
def test_attribution_classes_give_the_same_under_fsdp(images, tmp_path):
    image = torch.stack(images[:1])

    def conductance(model):
        attribution = macattr.LayerConductance(model, model.blocks[1].up)
        return attribution.attribute(image, n_steps=4, objective=OutputSum())

    alone = conductance(network())

    def work(rank):
        assert torch.equal(conductance(sharded()), alone)

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_a_sharded_network_trains_after_a_ranking_as_before(images, tmp_path):
    def work(rank):
        model, other = sharded(), sharded()
        macattr.rank_layers(model, images[:1], **OPTIONS)
        for each in (model, other):
            each(torch.stack(images)).square().mean().backward()
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(one.grad.full_tensor(), two.grad.full_tensor())
        macattr.rank_layers(model, images[:1], **OPTIONS)
        with torch.no_grad():
            model(torch.stack(images))  # leaves the root's weights gathered
        macattr.rank_layers(model, images, **OPTIONS)

    in_children(2, work, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "first"), [(sharded, "norm"), (tensor_parallel, "up")], ids=["fsdp", "tensor parallel"]
)
def test_gradients_of_sharded_weights_are_refused_by_name(images, tmp_path, build, first):
    pairs = [{"image": image, "clean": image / 2} for image in images[:2]]

    def work(rank):
        for method in GRADIENT_METHODS:
            more = {"start_weights": dict(network().named_parameters()), "n_steps": 2} if method == "faig" else {}
            message = f"'{method}' differentiates weights, but 'blocks.0.{first}.weight' is sharded"
            with pytest.raises(ValueError, match=message):
                macattr.rank_layers(build(), pairs, method=method, **more)

    in_children(2, work, tmp_path)


def over_both(mesh: DeviceMesh) -> Network:
    """Sharded along the second dimension of a mesh, and known to be equal along the first."""
    model = network()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def over_shards(mesh: DeviceMesh) -> Network:
    """Sharded along the second dimension alone: whatever shares the images is left to us."""
    return over_both(mesh["shards"])


def parallel_over_shards(mesh: DeviceMesh) -> Network:
    """Tensor parallel along the second dimension."""
    return tensor_parallel(mesh=mesh["shards"])


@pytest.mark.slow
@pytest.mark.parametrize("build", [over_both, over_shards, parallel_over_shards])
def test_replicas_along_the_first_dimension_of_a_mesh_share_the_images(images, tmp_path, build):
    """Four processes: two networks, each of which two processes hold together."""
    alone = macattr.rank_layers(network(), images, **OPTIONS)

    def work(rank):
        model = build(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards")))
        world = World.around(model)
        assert (world.rank, world.size, world.team) == (rank // 2, 2, ((0, 1), (2, 3))[rank // 2])
        assert_close(macattr.rank_layers(model, images, **OPTIONS, parts=tmp_path / f"{rank}"), alone)
        assert len(list((tmp_path / f"{rank}").glob("0*.json"))) == [2, 0, 1, 0][rank]

    in_children(4, work, tmp_path)


@pytest.mark.slow
def test_a_run_of_a_sharded_network_continues_where_one_process_kept_parts(images, tmp_path):
    alone = macattr.rank_layers(network(), images, **OPTIONS)
    macattr.rank_layers(network(), images[:2], **OPTIONS, parts=tmp_path / "0")

    def work(rank):
        continued = macattr.rank_layers(sharded(), images, **OPTIONS, parts=tmp_path / f"{rank}")
        assert same_scores(continued, alone)

    in_children(2, work, tmp_path)


def assert_close(importance: LayerImportance, other: LayerImportance) -> None:
    """Equal but for the last digits: processes add parts of a product."""
    assert importance.dataset["layer"].equals(other.dataset["layer"])
    torch.testing.assert_close(
        torch.tensor(importance.dataset["score"].to_numpy()),
        torch.tensor(other.dataset["score"].to_numpy()),
        rtol=1e-4,
        atol=1e-9,
    )


@pytest.mark.slow
def test_tensor_parallel_layers_score_as_in_one_process_by_every_method_of_outputs(images, tmp_path):
    methods = [*METHODS, "drift", "activation", "grad_x_activation", "internal_influence"]
    alone = macattr.rank_methods(network(), images, methods, **OPTIONS)
    each_alone = {"method": "layer_ig", "layers": ["blocks.0.up", "blocks.0.down"], "n_steps": 4}
    one_by_one = macattr.rank_layers(network(), images[:1], **each_alone)

    def work(rank):
        assert_close(macattr.rank_layers(tensor_parallel(), images[:1], **each_alone), one_by_one)
        for name, importance in macattr.rank_methods(tensor_parallel(), images, methods, **OPTIONS).items():
            assert_close(importance, alone[name])
            assert importance.dataset["parameters"].equals(alone[name].dataset["parameters"])

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_column_parallel_layers_are_reduced_over_all_of_their_neurons(images, tmp_path):
    alone = {name: macattr.rank_layers(network(), images, reduction=name, **OPTIONS) for name in REDUCTIONS}

    def work(rank):
        for name, expected in alone.items():
            assert_close(macattr.rank_layers(tensor_parallel(), images, reduction=name, **OPTIONS), expected)

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_column_parallel_layers_with_equal_halves_are_no_whole_ones(images, tmp_path):
    def with_equal_halves() -> Network:
        model = network()
        for block in model.blocks:
            with torch.no_grad():
                block.up.weight[8:], block.up.bias[8:] = block.up.weight[:8].clone(), block.up.bias[:8].clone()
        return model

    alone = macattr.rank_layers(with_equal_halves(), images, reduction="sum_abs", **OPTIONS)

    def work(rank):
        model = tensor_parallel(with_equal_halves())
        assert_close(macattr.rank_layers(model, images, reduction="sum_abs", **OPTIONS), alone)

    in_children(2, work, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("attribution", [macattr.LayerConductance, macattr.LayerIntegratedGradients])
def test_attribution_classes_return_the_whole_of_column_parallel_layers(images, tmp_path, attribution):
    def values(model):
        return attribution(model, model.blocks[0].up).attribute(
            torch.stack(images[:1]), n_steps=4, objective=OutputSum()
        )

    alone = values(network())

    def work(rank):
        torch.testing.assert_close(values(tensor_parallel()), alone, rtol=1e-4, atol=1e-7)

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_what_lies_between_the_parallel_layers_is_left_out_or_refused_by_name(images, tmp_path):
    alone = macattr.rank_layers(network(), images, layers=["head"], **OPTIONS)

    def work(rank):
        with pytest.warns(UserWarning, match=r"left out 2 layers of which .* blocks\.0\.act, blocks\.1\.act"):
            assert_close(macattr.rank_layers(tensor_parallel(), images, layers=["*.act", "head"], **OPTIONS), alone)
        message = r"another part of 'blocks\.0\.act', between a column-parallel"
        with pytest.raises(ValueError, match=message):
            macattr.rank_layers(tensor_parallel(), images, layers=["blocks.0.act", "head"], **OPTIONS)
        for attribution in (macattr.LayerConductance, macattr.LayerIntegratedGradients):
            model = tensor_parallel()
            with pytest.raises(ValueError, match=message):
                attribution(model, model.blocks[0].act).attribute(
                    torch.stack(images[:1]), n_steps=4, objective=OutputSum()
                )

    in_children(2, work, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("local", [True, False], ids=["local", "DTensor"])
def test_an_output_of_which_every_process_holds_a_part_is_refused(images, tmp_path, local):
    def work(rank):
        model = nn.Sequential(network(), nn.Linear(8, 8))
        parallelize_module(model, init_device_mesh("cpu", (2,)), {"1": ColwiseParallel(use_local_output=local)})
        with pytest.raises(ValueError, match=r"another part of the network's output.*output_layouts=Replicate"):
            macattr.rank_layers(model.eval(), images, **OPTIONS)

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_sequence_parallel_layers_are_left_out_and_the_others_are_exact(images, tmp_path):
    layers = ["blocks.0.up", "blocks.1.up", "head"]
    alone = macattr.rank_layers(network(), images, layers=layers, **OPTIONS)

    def work(rank):
        model, mesh = network(), init_device_mesh("cpu", (2,))
        part = PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(1), use_local_output=True)
        for block in model.blocks:
            up, down = ColwiseParallel(input_layouts=Shard(1)), RowwiseParallel(output_layouts=Shard(1))
            parallelize_module(block, mesh, {"norm": SequenceParallel(), "up": up, "down": down})
        head = ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate())
        parallelize_module(model, mesh, {"blocks.0": part, "head": head})
        with pytest.warns(UserWarning, match=r"left out 4 layers of which .* blocks\.0\.norm.*blocks\.1\.down"):
            assert_close(macattr.rank_layers(model, images, **OPTIONS), alone)

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_column_parallel_layers_whose_output_is_gathered_are_exact(images, tmp_path):
    alone = macattr.rank_methods(network(), images, ["mac", "magnitude", "kappa"], **OPTIONS)

    def work(rank):
        rankings = macattr.rank_methods(tensor_parallel(whole=True), images, list(alone), **OPTIONS)
        for name, importance in rankings.items():
            assert_close(importance, alone[name])
            assert importance.dataset["parameters"].equals(alone[name].dataset["parameters"])

    in_children(2, work, tmp_path)


@pytest.mark.slow
def test_the_older_fsdp_is_refused_with_the_newer(images, tmp_path):
    def work(rank):
        with pytest.raises(ValueError, match=r"wrapped by FullyShardedDataParallel.*fully_shard"):
            macattr.rank_layers(FullyShardedDataParallel(network(), device_id=torch.device("cpu")), images, **OPTIONS)

    in_children(2, work, tmp_path)


def offloaded(where: str, folder: Path) -> Network:
    """The network with its weights kept elsewhere by accelerate."""
    model = network()
    if where == "cpu":
        return accelerate.cpu_offload(model, execution_device="cpu") or model
    if where == "disk":
        return accelerate.disk_offload(model, folder, execution_device="cpu") or model
    devices = {"blocks.0": "disk", "blocks.1": "cpu", "head": "cpu"}
    return accelerate.dispatch_model(model, devices, main_device="cpu", offload_dir=folder)


@pytest.mark.parametrize("where", ["cpu", "disk", "device_map"])
def test_an_offloaded_network_is_ranked_as_one_in_memory_and_left_as_it_was(images, tmp_path, where):
    alone = macattr.rank_methods(network(), images, METHODS, **OPTIONS)
    model = offloaded(where, tmp_path)
    before = [id(parameter) for parameter in model.parameters()]
    rankings = macattr.rank_methods(model, images, METHODS, **OPTIONS)
    for name, importance in rankings.items():
        assert same_scores(importance, alone[name]), name
        for key in ("model_sha256", "network_sha256", "device"):
            assert importance.dataset.attrs[key] == alone[name].dataset.attrs[key], key
    assert [id(parameter) for parameter in model.parameters()] == before


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_gradients_of_offloaded_weights_are_refused(images, tmp_path, method):
    pairs = [{"image": image, "clean": image / 2} for image in images[:2]]
    more = {"start_weights": dict(network().named_parameters())} if method == "faig" else {}
    with pytest.raises(ValueError, match=f"'{method}' differentiates weights, but accelerate loads those of 'blocks.0"):
        macattr.rank_layers(offloaded("cpu", tmp_path), pairs, method=method, **more)


def test_offloaded_layers_are_not_trained_but_adapted(tmp_path):
    model = offloaded("device_map", tmp_path)
    mask = TrainableMask(("blocks.0.up", "blocks.0.down"))
    with pytest.raises(ValueError, match=r"accelerate loads 'blocks\.0\.up\.weight' anew.*lora_config"):
        mask.apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    applied = adapted_layers(lora_config(mask, model, rank=2), model)
    assert (applied.trained, applied.total) == (2 * 2 * (8 + 16), sum(p.numel() for p in network().parameters()))
    with pytest.raises(ValueError, match=r"'blocks\.0\.norm' would be copied.*accelerate keeps"):
        lora_config(TrainableMask(("blocks.0.norm", "blocks.0.up")), model)
    assert lora_config(TrainableMask(("blocks.1.norm", "blocks.1.up")), model).modules_to_save == ["blocks.1.norm"]


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_weights_are_not_randomised(images, tmp_path, where):
    with (
        pytest.raises(ValueError, match=r"'blocks\.0\.up' are kept elsewhere by accelerate.*load the network whole"),
        randomised(offloaded(where, tmp_path), ["blocks.0.up"]),
    ):
        pass


@pytest.mark.slow
def test_what_a_sharded_network_trains_is_what_was_selected(images, tmp_path):
    mask, batch = TrainableMask(("blocks.0.up",)), torch.stack(images)
    alone = network()
    mask.apply(alone)
    alone(batch).square().mean().backward()

    def work(rank):
        for build in (sharded, tensor_parallel):
            model = build()
            macattr.rank_layers(model, images[:1], **OPTIONS)
            assert str(mask.apply(model)) == str(mask.apply(network()))
            model(batch).square().mean().backward()
            trained = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            assert list(trained) == ["blocks.0.up.weight", "blocks.0.up.bias"]
            whole = trained["blocks.0.up.weight"].full_tensor()
            torch.testing.assert_close(whole, alone.blocks[0].up.weight.grad, rtol=1e-4, atol=1e-9)
        with pytest.raises(ValueError, match=r"sharded by `fully_shard`.*adapters before that"):
            lora_config(mask, sharded())
        assert adapted_layers(lora_config(mask, tensor_parallel(), rank=2), tensor_parallel()).trained == 2 * (8 + 16)
        for build in (sharded, tensor_parallel):
            with (
                pytest.raises(ValueError, match=r"'blocks\.0\.up' are sharded over processes"),
                randomised(build(), ["blocks.0.up"]),
            ):
                pass

    in_children(2, work, tmp_path)


def test_weights_without_values_are_still_refused(images):
    with torch.device("meta"):
        model = Network().eval()
    with pytest.raises(ValueError, match="on the meta device, without values"):
        macattr.rank_layers(model, images, **OPTIONS)


class Codes(nn.Parameter):
    """Stands for ``bitsandbytes.nn.Params4bit``."""


class PackedStandIn(nn.Module):
    """Stands for ``bitsandbytes.nn.Linear4bit``: codes (n / 2, 1) of bytes, and a ``quant_state`` with the shape."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        codes = torch.zeros(inputs * outputs // 2, 1, dtype=torch.uint8)
        self.weight = Codes(codes, requires_grad=False)
        self.weight.quant_state = SimpleNamespace(shape=torch.Size([outputs, inputs]))


def test_packed_parameters_count_as_what_they_stand_for():
    model = nn.Sequential(PackedStandIn(64, 32), nn.Linear(32, 4))
    table = LayerTable.of(model)
    assert [layer.parameters for layer in table.layers] == [64 * 32, 132]
    assert (table.count(["0"]), table.total) == (2048, 2180)
    count = TrainableMask(("1",)).apply(model)
    assert (count.trained, count.total) == (132, 2180)
    with (
        pytest.raises(ValueError, match=r"the weights of '0' are integers.*without quantisation"),
        randomised(model, ["0"]),
    ):
        pass


def test_a_network_in_four_bits_is_counted_ranked_and_hashed_by_its_values():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install --no-deps bitsandbytes")
    torch.manual_seed(0)
    packed = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.float32)
    weight = torch.randn(32, 64)
    packed.load_state_dict({"weight": weight})
    model = nn.Sequential(packed, nn.Tanh(), nn.Linear(32, 64)).to("cpu").eval()
    same = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Tanh(), model[2]).eval()
    same[0].weight = nn.Parameter(bitsandbytes.functional.dequantize_4bit(packed.weight, packed.weight.quant_state))
    vectors, along = list(torch.rand(2, 5, 1, 64)), {"n_steps": 4, "objective": OutputSum()}
    rankings = macattr.rank_methods(model, vectors, ["conductance", "magnitude", "kappa"], **along)
    for name, importance in rankings.items():
        want = macattr.rank_layers(same, vectors, method=name, **(along if name == "conductance" else {}))
        assert importance.dataset["score"].to_numpy() == pytest.approx(want.dataset["score"].to_numpy(), rel=1e-5)
        assert importance.dataset["parameters"].to_numpy().tolist() == [2048, 2112]
        assert importance.dataset.attrs["model_sha256"] == want.dataset.attrs["model_sha256"]
    mask = TrainableMask(("0", "2"))
    applied = adapted_layers(lora_config(mask, model, rank=2), model)
    assert (applied.trained, applied.total) == (2 * 2 * (32 + 64), 2048 + 2112)
    with pytest.raises(ValueError, match=r"'0\.weight' holds uint8 values, which have no gradient: train low-rank"):
        mask.apply(model)
    pairs = [{"image": vector, "clean": vector} for vector in vectors]
    with pytest.raises(ValueError, match="holds uint8 values, which have no gradient: load the network without"):
        macattr.rank_layers(model, pairs, method="fisher")
    with torch.no_grad():
        model(vectors[0])
    if packed.weight.quant_state.packing_format_for_cpu:
        with pytest.raises(ValueError, match="repacked the 4-bit weights of '0'"):
            macattr.rank_layers(model, vectors, **along)


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile", "module.compile"])
def test_a_compiled_network_is_ranked_under_its_own_names_and_never_compiled_anew(images, in_place):
    alone = macattr.rank_layers(network(), images[:2], **OPTIONS)
    counter, model = CompileCounterWithBackend("eager"), network()
    if in_place:
        model.compile(backend=counter)
    else:
        model = torch.compile(model, backend=counter)
    with torch.no_grad():
        model(torch.stack(images))
    compiled = counter.frame_count
    importance = macattr.rank_layers(model, images[:2], **OPTIONS)
    with torch.no_grad():
        model(torch.stack(images))
    assert counter.frame_count == compiled == 1
    assert importance.dataset["layer"].equals(alone.dataset["layer"])
    assert same_scores(importance, alone)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_give_the_same_scores(images, reentrant):
    alone = macattr.rank_layers(network(), images[:2], **OPTIONS)
    model = network()
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=reentrant)
    assert same_scores(macattr.rank_layers(model, images[:2], **OPTIONS), alone)
