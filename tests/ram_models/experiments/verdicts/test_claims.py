"""From scores to verdicts: on scores that were made up, so that every answer is known."""

import math

import numpy as np
import pandas as pd
import pytest

from ram_models.experiments.paper_arms import ALL, LONGER
from ram_models.experiments.study.store import UNTUNED_SEED, BlockKey
from ram_models.experiments.verdicts.claims import Claim, Evidence, check_claims
from ram_models.experiments.verdicts.frontier import above_frontier
from ram_models.experiments.verdicts.means import (
    BASELINE,
    ID,
    NOISE,
    UNLIT,
    UNSEEN_EXTRA,
    by_arm,
    by_network,
    with_runs,
)

MARGINS = {ID: 0.05, "pepper": 0.2, NOISE: 0.2, UNSEEN_EXTRA: 0.2}
BLOCKS = [BlockKey(f"masked-{number % 3}", 10 + number // 3) for number in range(6)]
GAINS = (0.30, 0.40, 0.50, 0.35, 0.45, 0.40)

COLUMNS = ("pretrained", "seed", "arm", "progress", "kind", "task", "setting", "image", "psnr_db", "ssim", "kept_db")


def scores(pretrained, seed, arm, progress=1.0, trained=20.0, unseen=15.0):
    """Two tasks of one and three images and the three noises of one; all at the same PSNR but for a spread of 1 dB."""
    rows = [("trained", "lowlight", "a", 0.0), *(("trained", "noise", f"n{i}", i - 1.0) for i in range(3))]
    rows += [("unseen", task, "u", 0.0) for task in ("poisson", "pepper", "speckle")]
    means, key = {"trained": trained, "unseen": unseen}, (pretrained, seed, arm, progress)
    filled = [(*key, kind, task, task, image, means[kind] + spread, 0.5, 30.0) for kind, task, image, spread in rows]
    return pd.DataFrame(filled, columns=list(COLUMNS))


def study(gains=GAINS, unseen=GAINS):
    """Six blocks in which "good" is better than "plain" by ``gains`` on trained tasks and ``unseen`` on other noise."""
    parts = [scores(f"masked-{n}", UNTUNED_SEED, "whole", 0.0, 10.0, 9.0) for n in range(3)]
    for number, (block, by, more) in enumerate(zip(BLOCKS, gains, unseen, strict=False)):
        parts += [scores(*block, "plain", trained=20.0 + number)]
        parts += [scores(*block, "good", trained=20.0 + number + by, unseen=15.0 + more)]
    return pd.concat(parts, ignore_index=True)


def check(*claims, of=None, **options):
    networks = by_network(study() if of is None else of)
    return check_claims(Evidence(networks, BLOCKS, **options), claims, MARGINS)


BETTER = Claim("better", "good", "plain")


def test_a_task_counts_the_same_however_many_images_test_it():
    one = scores("masked-0", 10, "plain")
    one.loc[one["task"] == "lowlight", "psnr_db"] = 30.0
    table = by_network(one)
    assert table[ID].item() == pytest.approx(25.0)
    assert table[UNLIT].item() == pytest.approx(20.0)
    assert table[UNSEEN_EXTRA].item() == pytest.approx(-5.0)


@pytest.mark.parametrize(
    ("images", "noise", "mean"),
    [(["n0"], 20.5, 20.25), (["n0", "n1", "n2"], np.inf, np.nan)],
    ids=["one_of_three", "a_whole_task"],
)
def test_restorations_that_equal_the_clean_image_are_counted_and_left_out(images, noise, mean):
    one = scores("masked-0", 10, "plain")
    one.loc[one["image"].isin(images), "psnr_db"] = np.inf
    with pytest.warns(UserWarning, match=f"{len(images)} of 7 restorations equal the clean image"):
        table = by_network(one)
    assert table["noise"].item() == pytest.approx(noise)
    assert table[ID].item() == pytest.approx(mean, nan_ok=True)
    assert table[UNLIT].item() == pytest.approx(noise)


def test_a_difference_is_taken_block_by_block():
    found = check(BETTER).iloc[0]
    assert (found["blocks"], found["mean_db"], found["verdict"]) == (6, pytest.approx(0.4), "holds")
    assert found["low_pretrainings_db"] < found["low_db"] < 0.4 < found["high_db"] < found["high_pretrainings_db"]
    assert found["p_sign_flip"] == 2 / 2**6  # the least that six blocks can give
    assert found["p_holm"] == found["p"]
    assert found["unlit_db"] == pytest.approx(0.4)


def test_the_opposite_claim_is_falsified():
    assert check(Claim("worse", "plain", "good")).iloc[0]["verdict"] == "falsified"


def test_better_on_unseen_noise_by_as_much_as_on_trained_noise_is_no_more():
    found = check(Claim("better", "good", "plain", NOISE), Claim("more", "good", "plain", UNSEEN_EXTRA))
    assert found["verdict"].tolist() == ["holds", "equivalent"]
    assert found["mean_db"].tolist() == pytest.approx([0.4, 0.0])


def test_p_is_corrected_for_all_claims_of_the_table():
    spread = study((0.10, 0.29, 0.50, 0.50, 0.30, 0.10))
    assert check(BETTER, of=spread)["verdict"].tolist() == ["holds"]
    found = check(*[BETTER] * 10, of=spread)
    assert found["p_holm"].iloc[0] == pytest.approx(10 * found["p"].iloc[0])
    assert set(found["verdict"]) == {"undecided"}


def test_arms_with_the_same_layers_are_not_compared():
    found = check(Claim("?", "good", "other"), stands={"other": "good"}).iloc[0]
    assert found["verdict"] == "the same layers"
    assert np.isnan(found["mean_db"])


def test_blocks_in_which_both_arms_train_the_same_are_left_out_and_five_decide_nothing():
    overlaps = dict.fromkeys(BLOCKS, 0.5) | {BLOCKS[0]: 0.95, BLOCKS[1]: 0.8}
    found = check(BETTER, overlaps=lambda a, b: overlaps).iloc[0]
    assert (found["blocks"], found["same_blocks"], found["verdict"]) == (5, 1, "undecided")
    assert (found["least_overlap"], found["most_overlap"]) == (0.5, 0.8)


def test_a_study_can_keep_blocks_in_which_two_arms_train_nearly_the_same():
    found = check(BETTER, overlaps=lambda a, b: dict.fromkeys(BLOCKS, 0.95), merged=math.inf).iloc[0]
    assert (found["blocks"], found["same_blocks"], found["least_overlap"]) == (6, 0, 0.95)


def test_pre_trainings_that_disagree_leave_a_claim_undecided():
    """The interval over six blocks lies above the margin, that over three pre-trainings does not."""
    gains = (0.60, 0.20, 0.15, 0.62, 0.22, 0.14)
    found = check(BETTER, of=study(gains)).iloc[0]
    assert found["low_db"] > 0.05 > found["low_pretrainings_db"]
    assert found["verdict"] == "undecided"


def test_an_arm_that_was_not_run_is_not_judged():
    found = check(Claim("?", "good", "absent"), BETTER)
    assert found["verdict"].tolist() == ["not tested", "holds"]


def test_a_claim_says_whether_its_arms_were_tuned():
    assert check(BETTER, Claim("!", "good", "whole"), untuned=["plain"])["tuned"].tolist() == [False, True]


def test_a_baseline_is_compared_in_the_blocks_of_its_seed():
    baseline = scores(f"{BASELINE}-1", UNTUNED_SEED, BASELINE, 0.0, 30.0)
    found = check(Claim("better", "good", BASELINE), of=pd.concat([study(), baseline])).iloc[0]
    assert (found["blocks"], found["pretrainings"], found["verdict"]) == (2, 1, "undecided")
    assert found["mean_db"] == pytest.approx(np.mean([21.40, 24.45]) - 30.0)


def test_means_are_over_the_blocks_that_all_arms_have():
    missing = study(GAINS[:3])
    missing = missing[~((missing["arm"] == "plain") & (missing["pretrained"] == "masked-2"))]
    table = by_arm(by_network(missing), ["whole", "good", "plain"], {}, BLOCKS).set_index("arm")
    assert table.loc[["good", "plain"], "blocks"].tolist() == [2, 2]
    assert table.loc["good", ID] == pytest.approx(20.85)  # of 20.3 and 21.4, not 22.5


def test_networks_without_fine_tuning_are_not_counted_as_blocks():
    table = by_arm(by_network(study(GAINS[:3])), ["whole", "good"], {}, BLOCKS).set_index("arm")
    assert np.isnan(table.loc["whole", "blocks"])
    assert table[ID].tolist() == pytest.approx([10.0, 21.4])


def test_points_on_a_straight_line_stand_beside_the_run_at_its_end():
    points = pd.concat([scores("masked-0", 10, ALL.name), scores("masked-0", 10, ALL.interpolated, 0.4)])
    runs = pd.DataFrame(
        {
            "pretrained": "masked-0",
            "seed": 10,
            "arm": [ALL.name],
            "lr": 0.002,
            "steps": 9,
            "parameters": 5,
            "device": "cpu",
        }
    )
    assert with_runs(by_network(points), runs)[["progress", "lr"]].to_numpy().tolist() == [[1.0, 0.002], [0.4, 0.002]]


def frontier():
    """Full fine-tuning that goes straight from (10, 9) over (15, 12) to (20, 13)."""
    parts = [scores("masked-0", UNTUNED_SEED, "whole", 0.0, 10.0, 9.0), scores("masked-0", 10, "all", 0.5, 15.0, 12.0)]
    parts += [scores("masked-0", 10, "all", 1.0, 20.0, 13.0), scores("masked-0", 10, "few", 1.0, 17.5, 14.0)]
    return pd.concat([*parts, scores("masked-0", 10, "far", 1.0, 21.0, 14.0)], ignore_index=True)


def test_the_frontier_is_read_at_equal_quality():
    assert above_frontier(by_network(frontier()), "few", NOISE, ID, BLOCKS).item() == pytest.approx(14.0 - 12.5)


def test_an_interpolated_network_that_is_better_raises_the_frontier():
    better = scores("masked-0", 10, "all, interpolated", 0.5, 17.5, 13.8)
    table = by_network(pd.concat([frontier(), better], ignore_index=True))
    assert above_frontier(table, "few", NOISE, ID, BLOCKS).item() == pytest.approx(0.2)


def test_longer_full_fine_tuning_reaches_farther_and_raises_the_frontier():
    longer = scores("masked-0", 10, LONGER.name, 1.0, 22.0, 15.0)
    drawn_back = scores("masked-0", 10, LONGER.interpolated, 0.8, 20.0, 14.5)
    without = frontier().assign(pretrained="masked-1")
    found = by_network(pd.concat([frontier(), longer, drawn_back, without], ignore_index=True))
    assert above_frontier(found, "few", NOISE, ID, BLOCKS[:2]).tolist() == pytest.approx([14.0 - 13.125, 14.0 - 12.5])
    far = above_frontier(found, "far", NOISE, ID, BLOCKS)
    assert far["masked-0", 10] == pytest.approx(14.0 - 14.75)
    assert np.isnan(far["masked-1", 10])


def test_nothing_is_compared_beyond_the_frontier():
    assert np.isnan(above_frontier(by_network(frontier()), "far", NOISE, ID, BLOCKS).item())


def test_a_claim_at_equal_quality_is_about_the_frontier():
    claim = Claim("above", "few", ALL.name, NOISE, matched="noise")
    found = check(claim, of=frontier()).iloc[0]
    assert (found["mean_db"], found["blocks"], found["verdict"]) == (pytest.approx(1.5), 1, "undecided")
