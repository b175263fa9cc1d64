"""``data=pattern``: a template of paths says which part of a path is the split, the class and the group.

| in a template                      | matches                                                       |
|------------------------------------|---------------------------------------------------------------|
| ``{split}``, ``{class}``, ``{group}`` | as little as possible of one folder or file name           |
| the same name again                | the same text again                                           |
| ``*``                              | as little as possible of one name, also nothing               |
| ``**``                             | any number of folders and names                               |
| ``[0-9]``, ``[!0-9]``              | one character of a set, or one that is not in it              |
| anything else                      | itself                                                        |

Templates are separated by ``|``; the first that matches a whole path counts.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from deepfake_cls.config import PatternConfig
from deepfake_cls.data.listing import walk
from deepfake_cls.data.manifest import Split, split_name
from deepfake_cls.data.named import NamedImage, make_splits
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError
from deepfake_cls.notation import override

_log = logging.getLogger(__name__)
_FIELDS = ("split", "class", "group")
_TOKEN = re.compile(r"\{(?P<field>\w*)\}|(?P<folders>\*\*/)|(?P<any>\*\*)|(?P<star>\*)|\[(?P<not>!?)(?P<set>[\w.-]+)\]")


@source("pattern")
class PatternSource(FileSource):
    """Folders and file names that a template describes."""

    Config = PatternConfig
    config: PatternConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See ``FileSource``."""
        pattern = self.config.pattern
        templates = [_compile(template, pattern) for template in pattern.split("|")]
        paths = walk(root)
        images, others = list[NamedImage](), list[str]()
        for path in paths:
            match = next(filter(None, (template.fullmatch(path) for template in templates)), None)
            if match is None:
                others.append(path)
                continue
            found = match.groupdict()
            images.append(NamedImage(found.get("split") or "train", path, found.get("class"), found.get("group")))
        if not images:
            example = f"; an image there is {paths[0]}" if paths else ", since there is none"
            raise InputError(f"{override('data.pattern', pattern)}: matches no image in {root}{example}.")
        if others:
            _log.warning(
                "data.pattern: does not match %s of %s images in %s, such as %s; they are not used",
                f"{len(others):,}", f"{len(paths):,}", root, others[0],
            )  # fmt: skip
        return make_splits(self._with_split_names(images), root)

    def _with_split_names(self, images: list[NamedImage]) -> list[NamedImage]:
        """Apply ``data.split_map`` and the aliases of ``train``, ``validation`` and ``test``."""
        found = {image.split for image in images}
        names = {old: str(new) for old, new in self.config.split_map.items()}
        if unknown := [name for name in names if name not in found]:
            raise InputError(
                f"data.split_map: the data has no split {', '.join(unknown)}; it has {', '.join(sorted(found))}."
            )
        names = {name: split_name(name) for name in found} | names
        return [image._replace(split=names[image.split]) for image in images]


def _compile(template: str, pattern: str) -> re.Pattern[str]:
    """The regular expression of one template; ``pattern`` is the value of the key, for the message."""
    parts, end, seen = list[str](), 0, set[str]()
    for token in _TOKEN.finditer(template):
        parts.append(re.escape(template[end : token.start()]))
        end = token.end()
        field = token["field"]
        if field is not None and field not in _FIELDS:
            raise InputError(
                f"{override('data.pattern', pattern)}: {token[0]} is unknown; expected {{split}}, {{class}} or"
                " {group}."
            )
        if field is not None:
            parts.append(f"(?P={field})" if field in seen else f"(?P<{field}>[^/]+?)")
            seen.add(field)
        elif token["set"] is not None:
            parts.append(f"[{'^/' if token['not'] else ''}{token['set']}]")
        else:
            parts.append("(?:[^/]+/)*?" if token["folders"] else ".*?" if token["any"] else "[^/]*?")
    return re.compile("".join([*parts, re.escape(template[end:])]), re.DOTALL)
