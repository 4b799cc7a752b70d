"""Measuring what was sampled, with any encoder: Fréchet distances, nearest neighbours, accuracy."""
