"""`python -m unsee` is `unsee`."""

from unsee.cli import script

if __name__ == "__main__":
    script()
