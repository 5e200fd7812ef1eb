"""Check pages with axe-core in headless Chromium: light, dark, and as wide as a phone.

npm install --prefix build/axe axe-core
python scripts/accessibility.py runs/demo/report.html runs/demo/answers.html

The rules are those of WCAG 2.0 to 2.2 (A and AA) and axe's best practices. axe is copied into a copy of the page, which writes what
it finds into itself; nothing leaves the machine. Exit code 1 with findings.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from screenshot import QUIET, browser

AXE = Path("build/axe/node_modules/axe-core/axe.min.js")
VIEWS = {
    "light": (1280, 1, False),
    "dark": (1280, 0, False),
    "phone": (375, 1, False),
    "phone, all open": (375, 1, True),
}
"""View -> width in pixels, Chromium's preferred colour scheme (0 dark, 1 light), whether folded parts are opened."""
RUN = """
addEventListener("load", async () => {
  if (OPEN) document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const found = await axe.run({ runOnly: { type: "tag", values: tags } });
  const place = document.createElement("pre");
  place.id = "axe-findings";
  const wide = document.documentElement.scrollWidth > innerWidth + 1 ? document.documentElement.scrollWidth : 0;
  const rules = found.violations.map(({ id, impact, help, nodes }) =>
    ({ id, impact, help, count: nodes.length, first: nodes.slice(0, 3).map((node) => node.target.join(" ") + ": " + node.any.concat(node.all, node.none).map((check) => check.message).join("; ")) }));
  place.textContent = JSON.stringify({ rules, wide, passes: found.passes.length });
  document.body.append(place);
});
"""


def findings(page: Path, axe: Path, view: str, command: str = "") -> dict[str, Any]:
    """Return what axe finds on a page: `rules` broken, `wide` (pixels, if it scrolls sideways) and the number of rules that `passes`."""
    width, scheme, opened = VIEWS[view]
    added = f"<script>{axe.read_text(encoding='utf-8')}</script><script>{RUN.replace('OPEN', json.dumps(opened))}</script></head>"
    text = page.read_text(encoding="utf-8").replace("</head>", added, 1)
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    with tempfile.TemporaryDirectory() as folder:
        copy = page.with_name(f".axe-{page.name}")  # beside its pictures
        copy.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [
                    browser(command),
                    *QUIET,
                    f"--user-data-dir={folder}",
                    f"--window-size={width},900",
                    f"--blink-settings=preferredColorScheme={scheme}",
                    "--virtual-time-budget=60000",
                    "--dump-dom",
                    copy.resolve().as_uri(),
                ],
                capture_output=True,
                text=True,
                timeout=280,
                check=False,
            )
        finally:
            copy.unlink()
    match = re.search(r'<pre id="axe-findings">(.*?)</pre>', done.stdout, re.DOTALL)
    if match is None:
        raise SystemExit(f"axe did not end on {page} (exit {done.returncode}): {done.stderr[-800:]}")
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


def main() -> int:
    """Check every page in every view, and print what is to be mended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--axe", type=Path, default=AXE, help=f"axe.min.js (default: {AXE})")
    parser.add_argument("--browser", default="", help="path of Chromium")
    options = parser.parse_args()
    if not options.axe.is_file():
        parser.error(f"there is no {options.axe}; npm install --prefix build/axe axe-core")
    broken = 0
    for page in options.pages:
        for view in VIEWS:
            found = findings(page, options.axe, view, options.browser)
            print(f"{page} ({view}): {len(found['rules'])} rules broken, {found['passes']} kept")
            for rule in found["rules"]:
                print(
                    f"  {rule['id']} ({rule['impact']}, {rule['count']} places): {rule['help']}",
                    *rule["first"],
                    sep="\n      ",
                )
            if found["wide"]:
                print(f"  scrolls sideways: {found['wide']} pixels wide")
            broken += len(found["rules"]) + bool(found["wide"])
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
