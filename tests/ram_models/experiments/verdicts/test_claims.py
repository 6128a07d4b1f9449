"""From scores to statements: on scores that were made up, so that every answer is known."""

import numpy as np
import pandas as pd
import pytest

from ram_models.experiments.study.runs import LONGER
from ram_models.experiments.study.store import UNTUNED
from ram_models.experiments.verdicts.claims import ID, NOISE, Claim, above_frontier, by_arm, by_network, check_claims

MARGINS = {ID: 0.05, "pepper": 0.2}
BLOCKS = [(f"masked-{number}", 10) for number in range(3)]


COLUMNS = ("pretrained", "seed", "arm", "progress", "kind", "task", "setting", "image", "psnr_db", "ssim", "kept_db")


def scores(pretrained, seed, arm, progress=1.0, trained=20.0, unseen=15.0):
    """Two tasks of one and three images and the three noises of one; all at the same PSNR but for a spread of 1 dB."""
    rows = [("trained", "haze", "a", 0.0), *(("trained", "noise", f"n{i}", i - 1.0) for i in range(3))]
    rows += [("unseen", task, "u", 0.0) for task in ("poisson", "pepper", "speckle")]
    means, key = {"trained": trained, "unseen": unseen}, (pretrained, seed, arm, progress)
    filled = [(*key, kind, task, task, image, means[kind] + spread, 0.5, 30.0) for kind, task, image, spread in rows]
    return pd.DataFrame(filled, columns=list(COLUMNS))


def study(gain=(0.3, 0.4, 0.5)):
    """Three blocks in which "good" is better than "plain" by ``gain``."""
    parts = [scores(f"masked-{n}", UNTUNED, "whole", 0.0, 10.0, 9.0) for n in range(3)]
    for number, by in enumerate(gain):
        parts += [scores(f"masked-{number}", 10, "plain", trained=20.0 + number)]
        parts += [scores(f"masked-{number}", 10, "good", trained=20.0 + number + by, unseen=15.0 - by)]
    return pd.concat(parts, ignore_index=True)


def test_a_task_counts_the_same_however_many_images_test_it():
    one = scores("masked-0", 10, "plain")
    one.loc[one["task"] == "haze", "psnr_db"] = 30.0
    assert by_network(one)[ID].item() == pytest.approx(25.0)


def check(claims, scores=None, stands=None, **options):
    return check_claims(
        by_network(study() if scores is None else scores), claims, stands or {}, MARGINS, BLOCKS, **options
    )


def test_a_difference_is_taken_block_by_block():
    found = check([Claim("better", "good", "plain", ID, 0.7, family=True)]).iloc[0]
    assert (found["blocks"], found["mean_db"], found["verdict"]) == (3, pytest.approx(0.4), "holds")
    assert 0 < found["low_db"] < 0.4 < found["high_db"]
    assert found["p_sign_flip"] == 0.25  # the least that three blocks can give
    assert found["p_holm"] == found["p_t"]


def test_the_opposite_claim_is_falsified():
    found = check([Claim("worse", "plain", "good")]).iloc[0]
    assert found["verdict"] == "falsified"


def test_arms_with_the_same_layers_are_not_compared():
    found = check([Claim("?", "good", "other")], stands={"other": "good"}).iloc[0]
    assert found["verdict"] == "the same layers"
    assert np.isnan(found["mean_db"])


def test_blocks_in_which_both_arms_train_the_same_are_left_out():
    same = {("masked-0", 10)}
    found = check([Claim("better", "good", "plain")], same=lambda a, b: same).iloc[0]
    assert (found["blocks"], found["same_blocks"], found["mean_db"]) == (2, 1, pytest.approx(0.45))


def test_a_claim_does_not_hold_against_one_of_the_pre_trainings():
    """The interval over six blocks excludes 0, but the two of one pre-training say the opposite."""
    gains = [0.50, 0.52, 0.54, 0.51, -0.01, -0.01]
    blocks = [(f"masked-{number // 2}", 10 + number % 2) for number in range(6)]
    parts = [scores(*block, "plain") for block in blocks]
    parts += [scores(*block, "good", trained=20 + gain) for block, gain in zip(blocks, gains, strict=True)]
    table = by_network(pd.concat(parts, ignore_index=True))
    found = check_claims(table, [Claim("better", "good", "plain")], {}, MARGINS, blocks).iloc[0]
    assert found["low_db"] > 0
    assert (found["positive_pretrainings"], found["pretrainings"], found["verdict"]) == (2, 3, "undecided")


def test_an_arm_that_was_not_run_is_not_judged():
    found = check([Claim("?", "good", "absent"), Claim("!", "good", "plain")])
    assert found["verdict"].tolist() == ["not tested", "holds"]


def test_means_are_over_the_blocks_that_all_arms_have():
    missing = study()
    missing = missing[~((missing["arm"] == "plain") & (missing["pretrained"] == "masked-2"))]
    table = by_arm(by_network(missing), ["whole", "good", "plain"], {}, BLOCKS).set_index("arm")
    assert table.loc[["good", "plain"], "blocks"].tolist() == [2, 2]
    assert table.loc["good", ID] == pytest.approx(20.85)  # of 20.3 and 21.4, not 22.5


def test_networks_without_fine_tuning_are_not_counted_as_blocks():
    table = by_arm(by_network(study()), ["whole", "good"], {}, BLOCKS).set_index("arm")
    assert np.isnan(table.loc["whole", "blocks"])
    assert table[ID].tolist() == pytest.approx([10.0, 21.4])


def frontier():
    """Full fine-tuning that goes straight from (10, 9) over (15, 12) to (20, 13)."""
    parts = [scores("masked-0", UNTUNED, "whole", 0.0, 10.0, 9.0), scores("masked-0", 10, "all", 0.5, 15.0, 12.0)]
    parts += [scores("masked-0", 10, "all", 1.0, 20.0, 13.0), scores("masked-0", 10, "few", 1.0, 17.5, 14.0)]
    return pd.concat([*parts, scores("masked-0", 10, "far", 1.0, 21.0, 14.0)], ignore_index=True)


def test_the_frontier_is_read_at_equal_quality_in_distribution():
    assert above_frontier(by_network(frontier()), "few", NOISE, BLOCKS).item() == pytest.approx(14.0 - 12.5)


def test_an_interpolated_network_that_is_better_raises_the_frontier():
    better = scores("masked-0", 10, "all, interpolated", 0.5, 17.5, 13.8)
    table = by_network(pd.concat([frontier(), better], ignore_index=True))
    assert above_frontier(table, "few", NOISE, BLOCKS).item() == pytest.approx(0.2)


def test_longer_full_fine_tuning_reaches_farther_and_raises_the_frontier():
    longer = scores("masked-0", 10, LONGER, 1.0, 22.0, 15.0)
    drawn_back = scores("masked-0", 10, f"{LONGER}, interpolated", 0.8, 20.0, 14.5)
    without = frontier().assign(pretrained="masked-1")
    found = by_network(pd.concat([frontier(), longer, drawn_back, without], ignore_index=True))
    assert above_frontier(found, "few", NOISE, BLOCKS).tolist() == pytest.approx([14.0 - 13.125, 14.0 - 12.5])
    far = above_frontier(found, "far", NOISE, BLOCKS)
    assert far["masked-0", 10] == pytest.approx(14.0 - 14.75)
    assert np.isnan(far["masked-1", 10])


def test_nothing_is_compared_beyond_the_frontier():
    assert np.isnan(above_frontier(by_network(frontier()), "far", NOISE, BLOCKS).item())
