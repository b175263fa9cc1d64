"""The HTML templates of a page: all text is escaped, and an unknown name is an error."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepfake_cls.figures import data_uri


def environment(package: str) -> Environment:
    """The templates in the folder ``templates`` of a package; the filter ``png`` makes an address of a figure."""
    templates = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["png"] = data_uri
    return templates
