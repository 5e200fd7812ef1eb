"""`python -m unsee` is `unsee`."""

from unsee import devices
from unsee.cli import main

if __name__ == "__main__":
    devices.leave(main())
