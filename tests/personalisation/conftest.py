"""The small pipeline for every test here."""

from small_pipelines import concept_folder, pipeline, pipeline_folder  # noqa: F401 – fixtures
