"""Which generator made this image? Train, compare and use attributors of synthetic images."""

__version__ = "0.1.0"
