"""How certain a score and a difference of two scores are. Pure functions of counts; shares are of 1, not of 100.

The score of a group is the plain mean over its subjects, so its questions have different weights, and the usual
intervals do not apply as they are. Here the group is given the number of questions that a simple random sample would
need to be as certain (its effective size: Korn and Graubard 1998, "Confidence intervals for proportions with small
expected number of positive counts estimated from survey data", Survey Methodology 24), and the interval for a simple
sample is made with that, or with a smaller one where subjects have so few questions that they seem not to vary (see
`_cautious_size`). Franco, Little, Louis and Slud (2019, "Comparative study of confidence intervals for
proportions in complex sample surveys", J. Survey Statistics and Methodology 7) compare intervals made so and recommend
Wilson's. For a single subject the effective size is its number of questions, so a group of one has its subject's
interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, linear_regression
from typing import ClassVar, NamedTuple

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


@dataclass(frozen=True, slots=True)
class Interval:
    __pydantic_config__: ClassVar = {"extra": "ignore"}  # slots have no place for what a later version may add

    low: float
    high: float

    def __mul__(self, factor: float) -> "Interval":
        """As in ``interval * 100`` for percent."""
        return Interval(self.low * factor, self.high * factor)


class Counts(NamedTuple):
    """How many of a subject's questions are correct. There is at least one."""

    right: int
    n: int


class Pairs(NamedTuple):
    """How a subject's questions changed from one run to another.

    Attributes:
        n: Questions that both answered, at least one.
        lost: Correct before and wrong now.
        won: Wrong before and correct now.
    """

    n: int
    lost: int
    won: int


def wilson(share: float, n: float) -> Interval:
    """The score interval of a share (Wilson 1927); ``n`` need not be whole."""
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    # The limits are 0 and 1 exactly where nothing and all is right; rounding must not move them.
    return Interval(0.0 if share <= 0 else max(0.0, middle - half), 1.0 if share >= 1 else min(1.0, middle + half))


def accuracy_interval(subjects: Sequence[Counts]) -> Interval:
    """The interval of the plain mean of these subjects' accuracies: of one subject, Wilson's.

    Raises ValueError if there is no subject.
    """
    shares = [one.right / one.n for one in subjects]
    sizes = [one.n for one in subjects]
    mean = fmean(shares)
    size = _effective_size(sizes, shares, [share * (1 - share) for share in shares], mean * (1 - mean))
    return wilson(mean, min(size, _cautious_size(subjects, mean)))


def mcnemar(lost: int, won: int) -> float:
    """The exact two-sided p-value of McNemar's test: the chance of flips at least so lopsided if each were a coin's.

    That is the sign test on the questions that changed; those that are correct or wrong in both runs carry no
    information. Computed with integers, so it is exact for any number of questions.
    """
    n, fewer = lost + won, min(lost, won)
    if lost == won:
        return 1.0
    terms = accumulate(range(fewer), lambda term, k: term * (n - k) // (k + 1), initial=1)  # n over 0, 1, … fewer
    p_value: float = sum(terms) / 2 ** (n - 1)  # of whole numbers, rounded once
    return p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979).

    If nothing differs, the probability that any of them is below 5 % is below 5 %.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def difference(subjects: Sequence[Pairs]) -> float:
    """The difference of the two plain means over these subjects, now minus before.

    Raises ValueError if there is no subject.
    """
    return fmean([(one.won - one.lost) / one.n for one in subjects])


def difference_interval(subjects: Sequence[Pairs]) -> Interval:
    """The interval of `difference`, from paired outcomes.

    Bonett and Price's (2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", J. Educational and Behavioral Statistics 37), which Fagerland, Lydersen and Laake (2014, "Recommended
    tests and confidence intervals for paired binomial proportions", Statistics in Medicine 33) recommend; for several
    subjects with their effective size. One more question is counted as lost and one as won, so that the interval has a
    width where nothing changed. Raises ValueError if there is no subject.
    """
    sizes = [one.n for one in subjects]
    changes = [(one.won - one.lost) / one.n for one in subjects]
    changed = [(one.won + one.lost) / one.n for one in subjects]
    mean, share = fmean(changes), fmean(changed)
    variances = [p - d * d for p, d in zip(changed, changes, strict=True)]
    n = _effective_size(sizes, changes, variances, share - mean * mean) + 2
    middle, spread = mean * (n - 2) / n, (share * (n - 2) + 2) / n
    half = Z95 * math.sqrt(max(0.0, spread - middle * middle) / n)
    return Interval(max(-1.0, middle - half), min(1.0, middle + half))


_PRIOR_ANSWERS = 4.0


def _cautious_size(subjects: Sequence[Counts], mean: float) -> float:
    """The effective size if every subject had four answers more, as good as the mean over all subjects.

    A subject with 0 or 2 of 2 correct seems not to vary at all, and where sizes differ, a few of these make the mean
    look far more certain than it is. With two answers of each kind (Agresti and Coull 1998, "Approximate is better than
    'exact' for interval estimation of binomial proportions", The American Statistician 52) every subject varies, those
    of many questions hardly more than they did. That four are enough is shown by simulation in the tests.
    """
    if len(subjects) == 1 or not 0 < mean < 1:
        return math.inf
    shares = [(one.right + _PRIOR_ANSWERS * mean) / (one.n + _PRIOR_ANSWERS) for one in subjects]
    varied = sum(share * (1 - share) / one.n for share, one in zip(shares, subjects, strict=True))
    return mean * (1 - mean) * len(subjects) ** 2 / varied


def _effective_size(
    sizes: Sequence[int], means: Sequence[float], variances: Sequence[float], variance_overall: float
) -> float:
    """The size of a simple random sample whose mean would vary as much as the plain mean of the subjects' means.

    Args:
        variances: How much a question of each varies, as the mean square about that mean.
        variance_overall: How much a question drawn of all subjects alike varies.
    """
    # A subject of one question says nothing about how much its questions vary; all subjects together do.
    unbiased = [variance / (n - 1) if n > 1 else variance_overall for n, variance in zip(sizes, variances, strict=True)]
    of_mean = sum(unbiased) / len(sizes) ** 2
    total = sum(sizes)
    if len(sizes) == 1 or of_mean <= 0 or variance_overall <= 0:
        # Nothing varies within any subject: what is left is how unlike the subjects' weights are (Kish 1965).
        return len(sizes) ** 2 / sum(1 / n for n in sizes)
    return total / (of_mean * (total - 1) / variance_overall)


def at_most(right: int, n: int, chance: float) -> float:
    """The probability of at most so many successes in ``n`` trials (binomial distribution)."""
    if right >= n * chance:
        return 1.0
    log_chance, log_rest, log_all = math.log(chance), math.log1p(-chance), math.lgamma(n + 1)
    return math.fsum(
        math.exp(log_all - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_chance + (n - k) * log_rest)
        for k in range(right + 1)
    )


def least_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the straight line through points, less three of its standard errors; 0 for too few points."""
    if len(x) < 3 or len(set(x)) < 2:
        return 0.0
    middle = math.fsum(x) / len(x)
    spread = math.fsum((a - middle) ** 2 for a in x)
    slope, intercept = linear_regression(x, y)
    missed = math.fsum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return slope - 3 * math.sqrt(missed / (len(x) - 2) / spread)
