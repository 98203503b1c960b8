"""Images and their truths: what is in a data folder, read the same way whatever its format."""

from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.datasets.samples import Dataset, Sample

__all__ = ["Dataset", "Sample", "open_dataset"]
