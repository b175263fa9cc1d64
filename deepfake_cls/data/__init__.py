"""Data sets: list the images, decode each one once, and serve batches. Importing it registers the built-in layouts."""

from deepfake_cls.data import folder, hf, pattern, synthetic, table, unibuc
from deepfake_cls.data.manifest import Manifest, Split
from deepfake_cls.data.sources import FileSource, Source, open_source, read_manifest, source

__all__ = [
    "FileSource",
    "Manifest",
    "Source",
    "Split",
    "folder",
    "hf",
    "open_source",
    "pattern",
    "read_manifest",
    "source",
    "synthetic",
    "table",
    "unibuc",
]
