"""Notebooks as pages: one HTML file each, which needs no network, no kernel and no other file, and prints on A4.

export_notebook("notebooks/04_ddim_eta.ipynb", "04_ddim_eta.html")
"""

from .notebooks import Exported, export_notebook

__all__ = ["Exported", "export_notebook"]
