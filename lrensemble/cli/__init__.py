"""The ``lrensemble`` command: one short file a sub-command, each the twin of a library function."""

from lrensemble.cli.main import main

__all__ = ["main"]
