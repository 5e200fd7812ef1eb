"""Photograph a report.html with headless Chromium: `python scripts/screenshot.py runs/demo/report.html docs/report.png`."""

from __future__ import annotations

import argparse
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def browser(wanted: str = "") -> str:
    """Return the path of a Chromium-like browser; exits with advice if there is none."""
    for name in (wanted,) if wanted else BROWSERS:
        if found := shutil.which(name):
            return found
    looked = wanted or ", ".join(BROWSERS)
    raise SystemExit(f"No browser found (looked for {looked}). Install chromium, or give its path with --browser.")


def photograph(page: Path, picture: Path, *, width: int, height: int, dark: bool, scale: float, command: str) -> None:
    """Write `page`, laid out `width` pixels wide, to the PNG file `picture`."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        arguments = [
            browser(command),
            *QUIET,
            *(["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]),
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--force-device-scale-factor={scale}",
            f"--screenshot={picture.resolve()}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    if not picture.is_file():
        raise SystemExit(f"The browser wrote no picture (exit {done.returncode}): {done.stderr[-800:]}")


def size(picture: Path) -> tuple[int, int]:
    """Return width and height of a PNG file in pixels."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width, height


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="the report.html")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="width of the window (1280)")
    parser.add_argument(
        "--height", type=int, default=1300, help="height of the window; what lies below is cut off (1300)"
    )
    parser.add_argument("--dark", action="store_true", help="as a reader with a dark desktop sees it")
    parser.add_argument("--scale", type=float, default=1.0, help="pixels of the picture per pixel of the page (1)")
    parser.add_argument("--browser", default="", help="browser to use (the first Chromium on the PATH)")
    given = parser.parse_args(arguments)
    if not given.page.is_file():
        raise SystemExit(f"No such file: {given.page}. Make a report first, for example with `make demo`.")
    photograph(
        given.page,
        given.picture,
        width=given.width,
        height=given.height,
        dark=given.dark,
        scale=given.scale,
        command=given.browser,
    )
    sys.stdout.write(f"{given.picture}: {size(given.picture)[0]} x {size(given.picture)[1]} pixels\n")


if __name__ == "__main__":
    main()
