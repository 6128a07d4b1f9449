"""From scores to statements: on scores that were made up, so that every answer is known."""

import numpy as np
import pandas as pd
import pytest

from ram_models.experiments.store import UNTUNED
from ram_models.experiments.summary import ID, NOISE, Claim, above_frontier, by_arm, by_network, check_claims

MARGINS = {ID: 0.05, "pepper": 0.2}


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


def test_a_difference_is_taken_block_by_block():
    found = check_claims(study(), [Claim("better", "good", "plain", ID, 0.7)], {}, MARGINS).iloc[0]
    assert (found["blocks"], found["mean_db"], found["verdict"]) == (3, pytest.approx(0.4), "holds")
    assert 0 < found["low_db"] < 0.4 < found["high_db"]
    assert found["p_sign_flip"] == 0.25  # the least that three blocks can give


def test_the_opposite_claim_is_falsified():
    found = check_claims(study(), [Claim("worse", "plain", "good")], {}, MARGINS).iloc[0]
    assert found["verdict"] == "falsified"


def test_arms_with_the_same_layers_are_not_compared():
    found = check_claims(study(), [Claim("?", "good", "other")], {"other": "good"}, MARGINS).iloc[0]
    assert found["verdict"] == "the same layers"
    assert np.isnan(found.get("mean_db", np.nan))


def test_an_arm_that_was_not_run_is_not_judged():
    found = check_claims(study(), [Claim("?", "good", "absent"), Claim("!", "good", "plain")], {}, MARGINS)
    assert found["verdict"].tolist() == ["not tested", "holds"]


def test_a_network_without_fine_tuning_stands_in_every_block():
    table = by_arm(by_network(study()), ["whole", "good"], {})
    assert table["blocks"].tolist() == [3, 3]
    assert table[ID].tolist() == pytest.approx([10.0, 21.4])


def frontier():
    """Full fine-tuning that goes straight from (10, 9) over (15, 12) to (20, 13)."""
    parts = [scores("masked-0", UNTUNED, "whole", 0.0, 10.0, 9.0), scores("masked-0", 10, "all", 0.5, 15.0, 12.0)]
    parts += [scores("masked-0", 10, "all", 1.0, 20.0, 13.0), scores("masked-0", 10, "few", 1.0, 17.5, 14.0)]
    return pd.concat([*parts, scores("masked-0", 10, "far", 1.0, 21.0, 14.0)], ignore_index=True)


def test_the_frontier_is_read_at_equal_quality_in_distribution():
    assert above_frontier(by_network(frontier()), "few", NOISE).item() == pytest.approx(14.0 - 12.5)


def test_an_interpolated_network_that_is_better_raises_the_frontier():
    better = scores("masked-0", 10, "all, interpolated", 0.5, 17.5, 13.8)
    table = by_network(pd.concat([frontier(), better], ignore_index=True))
    assert above_frontier(table, "few", NOISE).item() == pytest.approx(0.2)


def test_nothing_is_compared_beyond_the_frontier():
    assert np.isnan(above_frontier(by_network(frontier()), "far", NOISE).item())
