"""The small pipeline for every test here."""

from small_concepts import concept_folder, pipeline, pipeline_folder  # noqa: F401 – fixtures
