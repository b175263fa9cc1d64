"""Typed configuration of the commands that list and compare what exists; ``config`` has all others."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepfake_cls.schema import one_of


@dataclass
class PluginsConfig:
    """The key of every command.

    Attributes:
        plugins: Modules to import first; they register networks, layouts, augmentations, metrics and tables.
    """

    plugins: list[str] = field(default_factory=list)


@dataclass
class CompareConfig(PluginsConfig):
    """``python -m deepfake_cls.compare``.

    Attributes:
        runs: Folder that is searched for the ids.
        folders: Run folders, or the first digits of run ids; the first is the baseline. Arguments without = are these.
    """

    runs: str = "runs"
    folders: list[str] = field(default_factory=list)


@dataclass
class RunsConfig(PluginsConfig):
    """``python -m deepfake_cls.runs``.

    Attributes:
        runs: Folder whose runs are listed.
        prune: Delete failed or unfinished runs, or the checkpoints of finished runs, after showing what goes; none.
        yes: Delete without asking.
    """

    runs: str = "runs"
    prune: str = one_of("none", "failed", "unfinished", "checkpoints")
    yes: bool = False


@dataclass
class CacheFolderConfig:
    """The key of the image cache.

    Attributes:
        cache: Folder of decoded images; null is the user's cache folder.
    """

    cache: str | None = None


@dataclass
class CacheConfig(PluginsConfig):
    """``python -m deepfake_cls.cache``.

    Attributes:
        data: The image cache.
        prune: Delete the entries that were not opened for 30 days (unused), or that no process has open (all); none.
        yes: Delete without asking.
    """

    data: CacheFolderConfig = field(default_factory=CacheFolderConfig)
    prune: str = one_of("none", "unused", "all")
    yes: bool = False
