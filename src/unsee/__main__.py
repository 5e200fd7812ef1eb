"""Entry of the program: `unsee`, and `python -m unsee`."""

from __future__ import annotations

import json
import sys
from typing import NoReturn


def script() -> NoReturn:
    """Run the command line. A broken package that prevents it is reported by `unsee doctor`."""
    try:
        from unsee.cli.main import script as command_line
    except Exception as error:
        print(f"unsee cannot start: {type(error).__name__}: {error}", file=sys.stderr)
        if sys.argv[1:2] != ["doctor"]:
            sys.exit("Run `unsee doctor` to see which package is broken.")
        from unsee.workflows.doctor import doctor

        diagnosis = doctor(trial=False)
        print(json.dumps(diagnosis.to_mapping(), indent=2) if "--json" in sys.argv else diagnosis)
        sys.exit(1)
    command_line()


if __name__ == "__main__":
    script()
