"""``python -m lrensemble``: the same as the ``lrensemble`` command."""

import sys

from lrensemble.cli import main

if __name__ == "__main__":
    sys.exit(main())
