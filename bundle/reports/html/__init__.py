"""A run as one HTML file that needs nothing else: no network, no second file, no program but a browser."""

from bundle.reports.html.page import export, prepare, render_page

__all__ = ["export", "prepare", "render_page"]
