"""A run as one HTML file that needs nothing else: no network, no second file, no program but a browser."""

from bundle.reports.html.page import export, render_page

__all__ = ["export", "render_page"]
