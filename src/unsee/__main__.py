"""`python -m unsee` is `unsee`."""

import sys

from unsee.cli import main

if __name__ == "__main__":
    sys.exit(main())
