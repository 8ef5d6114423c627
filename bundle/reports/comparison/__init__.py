"""Two runs compared question by question: what changed, and whether that is statistically significant."""

from bundle.reports.comparison.comparison import Comparison, compare, require_comparable
from bundle.reports.comparison.rows import Row, Standing
from bundle.reports.comparison.wording import verdict

__all__ = ["Comparison", "Row", "Standing", "compare", "require_comparable", "verdict"]
