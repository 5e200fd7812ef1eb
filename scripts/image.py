"""Run the lines of the Dockerfile without Docker, in a folder: where there is no daemon, this is what can be tested.

python scripts/image.py FOLDER [--index URL] [COMMAND ...]

COPY and RUN are executed in order, with every absolute path of the image (/opt, /build, /work) below FOLDER, and an environment that
holds PATH, pip's own settings and what ENV and ARG say. Then COMMAND (default: demo --methods reject) is given to the entry point,
in the image's working folder. Not tested: the base image, apt-get, useradd and the user (they need root in an image of their own).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEED_AN_IMAGE = ("apt-get", "useradd")
"""Programs whose RUN lines are left out."""
IN_IMAGE = re.compile(r"(?<![\w./-])/(opt|build|work)(?=[/\s:\"']|$)")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile, continued lines joined, without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(str.strip, lines.splitlines()):
        name, _, rest = line.strip().partition(" ")
        yield name, rest.strip()


class Image:
    """State of the image as the instructions are executed."""

    def __init__(self, folder: Path, given: dict[str, str]) -> None:
        self.folder, self.given, self.place, self.entry = folder, given, folder, []
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), **kept}

    def inside(self, text: str) -> str:
        """Return the text with the image's absolute paths below the folder."""
        return IN_IMAGE.sub(lambda match: f"{self.folder}/{match[1]}", text)

    def execute(self, name: str, rest: str) -> None:
        """Execute one instruction."""
        if name in ("ENV", "ARG"):
            for part in shlex.split(rest):
                key, _, value = part.partition("=")
                value = self.given.get(key, value).replace("$PATH", self.environment["PATH"])
                self.environment[key] = self.inside(value)
        elif name == "WORKDIR":
            self.place = Path(self.inside(rest))
            self.place.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and not rest.startswith("--from"):
            self.copy(*shlex.split(rest))
        elif name == "RUN" and not any(program in rest for program in NEED_AN_IMAGE):
            print(f"RUN {rest}", flush=True)
            subprocess.run(["sh", "-ec", self.inside(rest)], cwd=self.place, env=self.environment, check=True)
        elif name == "ENTRYPOINT":
            self.entry = json.loads(rest)

    def copy(self, *words: str) -> None:
        """Copy files of the repository, of folders those that git knows or would add."""
        *sources, target = words
        for source in sources:
            listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", source]
            for file in subprocess.run(
                listed, cwd=ROOT, check=True, capture_output=True, text=True
            ).stdout.splitlines():
                inner = Path(file).relative_to(source) if (ROOT / source).is_dir() else Path(Path(file).name)
                to = self.place / target / inner
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, to)


def main() -> int:
    """Build and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", help="build argument TORCH_INDEX")
    parser.add_argument("command", nargs="*", default=["demo", "--methods", "reject"])
    options = parser.parse_args()
    folder = options.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    image = Image(folder, {"TORCH_INDEX": options.index} if options.index else {})
    for name, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        image.execute(name, rest)
    shutil.rmtree(folder / "build")  # the last stage has the environment only
    return subprocess.run(
        [*image.entry, *options.command], cwd=image.place, env=image.environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
