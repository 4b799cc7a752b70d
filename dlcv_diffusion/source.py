"""`listing` by the name that it had before."""

from .listing import listing as excerpt

__all__ = ["excerpt"]
