"""`python -m rinsho` is the `rinsho` command."""

import sys

from rinsho.cli import main

if __name__ == "__main__":
    sys.exit(main())
