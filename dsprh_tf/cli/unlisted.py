"""Flags that flag files of other programs may hold, and that `--help` does not list."""

from __future__ import annotations

from collections.abc import Iterable

from absl import flags


class FlagValuesWithUnlisted(flags.FlagValues):
    """Flags of which some are read but not listed."""

    def unlist(self, names: Iterable[str]) -> None:
        """Takes flags out of the listing."""
        self.__dict__["unlisted"] = frozenset(names)  # absl takes attributes for flags

    def __iter__(self):
        unlisted = self.__dict__.get("unlisted", ())
        return (name for name in super().__iter__() if name not in unlisted)
