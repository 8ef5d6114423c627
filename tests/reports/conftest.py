"""Fixtures that tests of reports share."""

from tests.reports.browser import browser

__all__ = ["browser"]
