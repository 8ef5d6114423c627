"""A run as one HTML file that needs nothing else: no network, no second file, no program but a browser."""

from bundle.reports.html.page import render_page, write_page

__all__ = ["render_page", "write_page"]
