"""How sure a score and a difference are: against SciPy and statsmodels, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.runs.statistics import (
    Counts,
    Interval,
    Pairs,
    accuracy_interval,
    difference,
    difference_interval,
    holm,
    least_slope,
    mcnemar,
    wilson,
)
from tests.late import late

stats, sm, models = late("scipy.stats"), late("statsmodels.stats.api"), late("statsmodels.regression.linear_model")

CEVAL_VAL: tuple[int, ...] = (
    *(19, 19, 21, 37, 19, 24, 19, 18, 16, 37, 24, 18, 19, 19, 19, 19, 21, 19, 20, 23, 55, 33, 19, 24, 29, 44),
    *(19, 19, 21, 12, 23, 19, 22, 24, 23, 33, 29, 23, 19, 20, 22, 47, 19, 22, 19, 22, 46, 49, 31, 31, 49, 49),
)
"""How many questions C-Eval's validation split has in each subject: 52 subjects, 1346 questions."""

counts = st.integers(1, 60).flatmap(lambda n: st.builds(Counts, st.integers(0, n), st.just(n)))
pairs = st.integers(1, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda lost: st.builds(Pairs, st.just(n), st.just(lost), st.integers(0, n - lost))
    )
)


# One subject


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (3, 52), (1345, 1346)])
def test_the_interval_of_a_subject_is_wilsons_as_scipy_and_statsmodels_have_it(right: int, n: int) -> None:
    ours = accuracy_interval([Counts(right, n)])

    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx(sm.proportion_confint(right, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize(
    ("lost", "won"), [(0, 0), (0, 1), (1, 0), (5, 5), (7, 1), (16, 6), (0, 30), (121, 59), (150, 86), (1200, 1100)]
)
def test_mcnemars_test_is_the_exact_one_of_statsmodels_and_the_sign_test_of_scipy(lost: int, won: int) -> None:
    ours = mcnemar(lost, won)

    assert ours == pytest.approx(sm.mcnemar([[50, lost], [won, 50]], exact=True).pvalue, rel=1e-9)
    if lost + won:
        assert ours == pytest.approx(stats.binomtest(lost, lost + won).pvalue, rel=1e-9)


def test_mcnemars_test_stays_exact_where_floating_point_numbers_end() -> None:
    # Half to the power of 1000 is near the end of what a float can hold, and to that of 5000 beyond it.
    assert mcnemar(0, 1000) == math.ldexp(1.0, -999)
    assert mcnemar(0, 5000) == 0.0
    assert mcnemar(6900, 7100) == pytest.approx(stats.binomtest(6900, 14000).pvalue, rel=1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_test_is_a_probability_and_does_not_care_which_run_is_which(lost: int, won: int) -> None:
    assert 0 < mcnemar(lost, won) <= 1
    assert mcnemar(lost, won) == mcnemar(won, lost)


def test_the_interval_of_a_paired_difference_is_bonett_and_prices() -> None:
    # Airway hyper-responsiveness before and after (Bentur et al. 2009), as worked through by Fagerland, Lydersen and
    # Laake (2014): 21 patients, 7 changed one way and 1 the other.
    interval = difference_interval([Pairs(21, lost=7, won=1)])

    assert (interval.low, interval.high) == pytest.approx((-0.508, -0.013), abs=0.0005)


# Several subjects


def test_a_group_of_one_has_its_subjects_interval() -> None:
    assert accuracy_interval([Counts(7, 20)]) == wilson(7 / 20, 20)


def test_a_group_of_alike_subjects_is_as_sure_as_one_subject_of_all_its_questions() -> None:
    # Nearly: 199 and not 4 · 49 questions are what the spread within the subjects is measured by.
    group, whole = accuracy_interval([Counts(20, 50)] * 4), accuracy_interval([Counts(80, 200)])

    assert (group.low, group.high) == pytest.approx((whole.low, whole.high), abs=0.001)


def test_a_small_subject_makes_a_group_less_sure_for_it_weighs_as_much_as_a_large_one() -> None:
    even = accuracy_interval([Counts(50, 100), Counts(50, 100)])
    uneven = accuracy_interval([Counts(5, 10), Counts(95, 190)])

    assert uneven.high - uneven.low > 1.5 * (even.high - even.low)


def test_all_right_and_all_wrong_subjects_leave_a_group_no_surer_than_its_questions_allow() -> None:
    interval = accuracy_interval([Counts(2, 2), Counts(0, 2)])

    assert interval == wilson(0.5, 4)


def test_no_subject_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one data point"):
        accuracy_interval([])
    with pytest.raises(ValueError, match="at least one data point"):
        difference_interval([])


@given(st.lists(counts, min_size=1, max_size=60))
def test_an_interval_holds_its_mean_and_stays_within_what_is_possible(subjects: list[Counts]) -> None:
    interval = accuracy_interval(subjects)

    mean = sum(one.right / one.n for one in subjects) / len(subjects)
    assert 0 <= interval.low <= mean + 1e-12
    assert mean - 1e-12 <= interval.high <= 1
    assert interval.high > interval.low


@given(st.lists(pairs, min_size=1, max_size=60))
def test_a_differences_interval_holds_it_has_a_width_and_turns_round_with_the_runs(subjects: list[Pairs]) -> None:
    interval = difference_interval(subjects)
    back = difference_interval([Pairs(one.n, one.won, one.lost) for one in subjects])

    assert -1 <= interval.low <= difference(subjects) + 1e-12
    assert difference(subjects) - 1e-12 <= interval.high <= 1
    assert interval.high > interval.low
    assert (back.low, back.high) == pytest.approx((-interval.high, -interval.low), abs=1e-9)


# Several tests


@pytest.mark.parametrize(
    "p_values",
    [[0.03], [0.01, 0.04, 0.02], [0.04, 0.04, 0.04], [1.0, 0.0, 0.6, 0.0], [0.9, 1e-300, 0.5, 0.012, 0.0125, 0.013]],
)
def test_holms_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(sm.multipletests(p_values, method="holm")[1], abs=1e-12)


def test_nothing_is_corrected_where_there_is_nothing() -> None:
    assert holm([]) == []


# Simulation: of 95 % intervals about 95 in 100 hold the truth, whatever the sizes of the subjects


def _simulated_shares(
    subjects: int, middle: float, spread: float, seed: int
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.clip(np.random.default_rng(seed).normal(middle, spread, subjects), 0.05, 0.97)


@pytest.mark.parametrize(
    ("sizes", "middle", "spread"),
    [
        pytest.param(CEVAL_VAL, 0.6, 0.15, id="C-Eval"),
        pytest.param(CEVAL_VAL, 0.25, 0.0, id="C-Eval, guessing"),
        pytest.param((2,) * 52, 0.6, 0.15, id="the sample"),
        pytest.param((1,) * 52, 0.5, 0.2, id="one question a subject"),
        pytest.param((20, 20, 25), 0.9, 0.05, id="three subjects, nearly all right"),
    ],
)
def test_95_in_100_intervals_of_a_group_hold_the_true_mean(
    sizes: tuple[int, ...], middle: float, spread: float
) -> None:
    truth = _simulated_shares(len(sizes), middle, spread, seed=1)
    draws = np.random.default_rng(2).binomial(sizes, truth, (1000, len(sizes)))

    held = sum(
        _holds(accuracy_interval([Counts(int(k), n) for k, n in zip(row, sizes, strict=True)]), float(truth.mean()))
        for row in draws
    )

    assert 0.93 <= held / len(draws) <= 0.975


@pytest.mark.parametrize(
    ("sizes", "lost", "won"),
    [
        pytest.param(CEVAL_VAL, 0.10, 0.10, id="C-Eval, no difference"),
        pytest.param(CEVAL_VAL, 0.05, 0.10, id="C-Eval, five points"),
        pytest.param((2,) * 52, 0.10, 0.15, id="the sample"),
        pytest.param((50,), 0.20, 0.10, id="one subject"),
    ],
)
def test_95_in_100_intervals_of_a_difference_hold_the_true_one(sizes: tuple[int, ...], lost: float, won: float) -> None:
    random = np.random.default_rng(3)
    draws = np.stack([random.multinomial(n, (lost, won, 1 - lost - won), 1000)[:, :2] for n in sizes], axis=1)

    held = sum(
        _holds(
            difference_interval([Pairs(n, int(b), int(c)) for n, (b, c) in zip(sizes, row, strict=True)]), won - lost
        )
        for row in draws
    )

    assert 0.93 <= held / len(draws) <= 0.98


def test_two_runs_that_do_not_differ_are_rarely_said_to() -> None:
    # An exact test of counts errs on the safe side: not more than 5 in 100, and somewhat fewer.
    flips = np.random.default_rng(4).multinomial(1346, (0.04, 0.04, 0.92), 2000)[:, :2]

    said = sum(mcnemar(int(lost), int(won)) < 0.05 for lost, won in flips)

    assert 0.02 <= said / len(flips) <= 0.06


@given(st.floats(0, 1), st.floats(1, 1e6))
def test_wilsons_interval_narrows_as_the_sample_grows(share: float, n: float) -> None:
    narrow, wide = wilson(share, 2 * n), wilson(share, n)

    assert narrow.high - narrow.low < wide.high - wide.low


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


CEVAL_SIZES = [
    19, 19, 21, 37, 19, 24, 19, 18, 16, 37, 24, 18, 19, 19, 19, 19, 21, 19, 20, 23, 55, 33, 19, 24, 29, 44, 19, 19, 21,
    12, 23, 19, 22, 24, 23, 33, 29, 23, 19, 20, 22, 47, 19, 22, 19, 22, 46, 49, 31, 31, 49, 49,
]  # fmt: skip
"""Questions of each subject in the validation split."""


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
@pytest.mark.parametrize(
    ("sizes", "least"),
    [
        ([2] * 11, 0.92),
        ([2] * 52, 0.93),
        ([5] * 11, 0.92),
        ([5] * 52, 0.93),
        ([10] * 5, 0.92),
        ([50] * 11, 0.935),
        (CEVAL_SIZES, 0.935),
        ([2, 50, 3, 20, 10], 0.92),
        ([2, 2, 50, 50, 30, 30, 5, 5], 0.92),
    ],
)
def test_the_interval_of_a_mean_covers_it_also_near_the_edges_and_for_small_subjects(
    sizes: list[int], least: float, share: float
) -> None:
    chance = np.random.default_rng([len(sizes), round(100 * share)])
    covered, repeats = 0, 800
    for right in chance.binomial(sizes, share, size=(repeats, len(sizes))):
        interval = accuracy_interval([Counts(int(k), n) for k, n in zip(right, sizes, strict=True)])
        covered += interval.low <= share <= interval.high
    # Three standard errors of the simulation itself.
    assert covered / repeats >= least - 3 * math.sqrt(least * (1 - least) / repeats)


@pytest.mark.parametrize("seed", range(4))
def test_it_covers_the_mean_of_subjects_that_are_unlike_each_other(seed: int) -> None:
    chance = np.random.default_rng(seed)
    sizes = CEVAL_SIZES if seed % 2 else [5] * 52
    shares = chance.beta(2, 1.5, len(sizes))
    covered, repeats = 0, 800
    for right in chance.binomial(sizes, shares, size=(repeats, len(sizes))):
        interval = accuracy_interval([Counts(int(k), n) for k, n in zip(right, sizes, strict=True)])
        covered += interval.low <= shares.mean() <= interval.high
    assert covered / repeats >= 0.93


def test_subjects_of_two_that_are_all_right_or_all_wrong_leave_much_open() -> None:
    interval = accuracy_interval([Counts(2 * (k % 2), 2) for k in range(11)])
    assert interval.high - interval.low > 0.3


# A line through points


@given(points=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=3, max_size=50))
def test_the_least_slope_of_a_line_is_three_standard_errors_below_its_slope(points: list[tuple[int, int]]) -> None:
    x, y = zip(*points, strict=True)
    if len(set(x)) < 2:
        assert least_slope(x, y) == 0
        return
    fitted = models.OLS(y, np.column_stack([np.ones(len(x)), x])).fit()
    assert least_slope(x, y) == pytest.approx(fitted.params[1] - 3 * fitted.bse[1], rel=1e-6, abs=1e-6)


def test_two_points_tell_no_slope() -> None:
    assert least_slope([1, 2], [1, 2]) == 0
