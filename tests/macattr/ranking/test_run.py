"""Runs that are shared by processes, killed, continued, or end by themselves."""

import json
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from macattr.ranking.importance import LayerImportance
from macattr.ranking.journal import Journal
from macattr.ranking.rank import RankingInterrupted, rank_layers, rank_methods
from macattr.ranking.run import World
from macattr.statistics.stopping import StableTop

FORK = multiprocessing.get_context("fork")
"""Children that need not import torch again."""

OPTIONS = {"n_steps": 10, "orders": 2}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).eval()


@pytest.fixture
def images() -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(1)
    return [{"image": torch.rand(3, 8, 8, generator=generator), "name": f"photo {i}"} for i in range(5)]


def in_children(size, work):
    """Run ``work(rank)`` in processes of its own; all must succeed."""

    def start(rank):
        torch.set_num_threads(1)
        work(rank)

    children = [FORK.Process(target=start, args=(rank,)) for rank in range(size)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_the_work_and_write_the_same_file(network, images, tmp_path, size):
    rank_layers(network, images, **OPTIONS).save(tmp_path / "alone.nc")

    def work(rank):
        dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=rank, world_size=size)
        rank_layers(network, images, **OPTIONS, parts=tmp_path / f"parts {rank}").save(tmp_path / f"{rank}.nc")
        dist.destroy_process_group()

    in_children(size, work)
    for rank in range(size):
        assert (tmp_path / f"{rank}.nc").read_bytes() == (tmp_path / "alone.nc").read_bytes()
        assert len(list((tmp_path / f"parts {rank}").glob("0*.json"))) in (10 // size, 10 // size + 1)


def test_processes_that_stop_early_agree_with_one_alone(network, images, tmp_path):
    stop = StableTop(0.5, confidence=0.5, min_images=4)
    alone = rank_layers(network, images, until=stop, **OPTIONS)

    def work(rank):
        dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=rank, world_size=2)
        rank_layers(network, images, until=stop, **OPTIONS).save(tmp_path / f"{rank}.nc")
        dist.destroy_process_group()

    in_children(2, work)
    for rank in range(2):
        assert LayerImportance.load(tmp_path / f"{rank}.nc").dataset.identical(alone.dataset)


def test_a_run_that_is_killed_ten_times_ends_as_if_it_had_not_been(network, tmp_path):
    """``MACATTR_KILLS`` sets another number of times; there are more images then, so that all hit a run at work."""
    kills = int(os.environ.get("MACATTR_KILLS", "10"))
    generator = torch.Generator().manual_seed(1)
    images = list(torch.rand(kills // 2, 3, 8, 8, generator=generator))
    rank_layers(network, images, **OPTIONS).save(tmp_path / "undisturbed.nc")
    draw = random.Random(0)

    def work():
        torch.set_num_threads(1)
        rank_layers(network, images, **OPTIONS, parts=tmp_path / "parts").save(tmp_path / "killed.nc")

    killed = 0
    for _ in range(kills):
        child = FORK.Process(target=work)
        child.start()
        time.sleep(draw.uniform(0.0, 0.25))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.join(60)
    print(f"killed {killed} times")
    assert killed >= kills // 2  # a child needs about as long as it is given
    work()
    assert (tmp_path / "killed.nc").read_bytes() == (tmp_path / "undisturbed.nc").read_bytes()


def test_finished_units_are_not_measured_again(network, images, tmp_path):
    rank_layers(network, images[:2], n_steps=4, parts=tmp_path)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    rank_layers(network, images[:2], n_steps=4, parts=tmp_path)
    assert len(calls) == 1  # the look at the network's layers


def test_every_finished_image_and_order_is_on_disk_at_once(network, images, tmp_path):
    def break_off():
        yield from images[:2]
        assert sorted(file.name for file in tmp_path.glob("0*.json")) == [
            "000000-0000.json", "000000-0001.json", "000001-0000.json", "000001-0001.json"
        ]  # fmt: skip
        raise OSError("the camera is gone")

    with pytest.raises(
        RankingInterrupted, match=r"the camera is gone\. It happened after 2 finished images"
    ) as stopped:
        rank_layers(network, break_off(), parts=tmp_path, **OPTIONS)
    assert stopped.value.finished.dataset["sample"].values.tolist() == ["photo 0", "photo 1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o, i: (o | {"r": 0.3}, i), "holds a run with r = 0.5, got 0.3: choose another folder"),
        (lambda o, i: (o, i[::-1]), "sample 0 is 'photo 4', but .* holds 'photo 0' in its place"),
    ],
    ids=["settings", "images"],
)
def test_parts_of_another_run_are_refused(network, images, tmp_path, change, message):
    rank_layers(network, images, parts=tmp_path, **OPTIONS)
    options, others = change(OPTIONS, images)
    with pytest.raises(ValueError, match=message):
        rank_layers(network, others, parts=tmp_path, **options)


def test_a_damaged_part_is_named(network, images, tmp_path):
    rank_layers(network, images, parts=tmp_path, **OPTIONS)
    (tmp_path / "000001-0000.json").write_text('{"name": "photo 1"')
    with pytest.raises(RankingInterrupted, match=r"000001-0000.json' is damaged .*: remove it"):
        rank_layers(network, images, parts=tmp_path, **OPTIONS)


def test_a_part_holds_what_the_ranking_tells(network, images, tmp_path):
    importance = rank_layers(network, images, parts=tmp_path, **OPTIONS)
    record = json.loads((tmp_path / "000003-0001.json").read_text())
    stored = record["readings"]["mac"]["score"]
    np.testing.assert_array_equal(stored, importance.dataset["score"].sel(sample="photo 3", order=1))


def test_a_run_stops_once_the_top_is_stable(network):
    generator = torch.Generator().manual_seed(2)
    many = torch.rand(40, 3, 8, 8, generator=generator)
    importance = rank_layers(network, many, n_steps=4, until=StableTop(0.5, min_images=8))
    scores = importance.values
    assert len(scores) in StableTop(0.5).looks(40)
    assert StableTop(0.5).check(scores).stable
    assert not any(StableTop(0.5).check(scores[:n]).stable for n in StableTop(0.5).looks(len(scores) - 1))
    assert f"after {len(scores)} of 40 images" in importance.dataset.attrs["stability"]


def test_methods_that_score_once_see_the_images_that_were_used(network):
    generator = torch.Generator().manual_seed(2)
    pairs = [(torch.rand(3, 8, 8, generator=generator),) * 2 for _ in range(12)]
    pairs = [(degraded, degraded.flip(1)) for degraded, _ in pairs]
    stop = StableTop(0.5, min_images=8)
    found = rank_methods(network, pairs, ["mac", "snr"], n_steps=4, until=stop)
    used = len(found["mac"].dataset["sample"])
    expected = rank_layers(network, pairs[:used], "snr")
    np.testing.assert_array_equal(found["snr"].values, expected.values)


def test_a_process_alone_is_the_first_of_one():
    assert World.around(nn.ReLU()) == World(0, 1)


def batch_norm_network(variance: float, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_var.fill_(variance)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm, activation(), nn.Conv2d(4, 3, 1)).eval()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((batch_norm_network(1.0), {}), (batch_norm_network(100.0), {})),
        ((batch_norm_network(1.0), {}), (batch_norm_network(1.0, nn.Tanh), {})),
        (
            (batch_norm_network(1.0), {"objective": lambda output: output.sum((1, 2, 3))}),
            (batch_norm_network(1.0), {"objective": lambda output: output.square().sum((1, 2, 3))}),
        ),
    ],
    ids=["buffers", "activation", "objective"],
)
def test_parts_and_rankings_of_another_network_or_objective_are_refused(images, tmp_path, first, second):
    one = rank_layers(first[0], images[:1], n_steps=4, parts=tmp_path, **first[1])
    with pytest.raises(ValueError, match=r"holds a run with .*: choose another folder"):
        rank_layers(second[0], images[:1], n_steps=4, parts=tmp_path, **second[1])
    other = rank_layers(second[0], images[1:2], n_steps=4, **second[1])
    with pytest.raises(ValueError, match="the rankings differ in"):
        LayerImportance.merge([one, other])


class Unknown:
    """An objective whose state cannot be compared between two processes."""

    def __init__(self) -> None:
        self.state = object()

    def __call__(self, output):
        return output.sum((1, 2, 3))


def test_parts_need_an_objective_that_can_be_identified(network, images, tmp_path):
    with pytest.raises(ValueError, match=r"`parts` needs settings that can be compared, but `objective` is .*Unknown"):
        rank_layers(network, images[:1], n_steps=4, parts=tmp_path, objective=Unknown())
    assert len(rank_layers(network, images[:1], n_steps=4, objective=Unknown()).values) == 1


def test_a_tolerance_that_no_run_could_meet_is_refused(network, images):
    with pytest.raises(ValueError, match=r"`tolerance` = 1e-300 would take .* steps an image, more than 100,000"):
        rank_layers(network, images[:1], tolerance=1e-300)


def test_a_method_of_the_same_name_that_was_defined_otherwise_is_another(tmp_path):
    Journal(tmp_path, {"methods": ["own: a"]})
    with pytest.raises(ValueError, match=r"holds a run with other methods: choose another folder"):
        Journal(tmp_path, {"methods": ["own: b"]})
    with pytest.raises(ValueError, match=r"holds a run with methods = own, got mac, own: choose another folder"):
        Journal(tmp_path, {"methods": ["mac: a", "own: a"]})


class Photographs:
    """Six images, one after the other, and the most of them that were held at a time."""

    def __init__(self) -> None:
        self.given, self.most = [], 0

    def __iter__(self):
        for _ in range(6):
            image = torch.rand(3, 8, 8)
            self.given.append(StorageWeakRef(image.untyped_storage()))
            self.most = max(self.most, sum(not each.expired() for each in self.given))
            yield image


@pytest.mark.parametrize(("other", "keeps_all"), [("random", False), ("cka", True)])
def test_images_are_let_go_unless_a_method_reads_all_of_them(network, other, keeps_all):
    photographs = Photographs()
    rank_methods(network, photographs, ["conductance", other], n_steps=2)
    assert (photographs.most == 6) == keeps_all
    assert photographs.most >= 2
