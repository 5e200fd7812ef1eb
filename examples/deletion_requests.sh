#!/usr/bin/env bash
# Deletion requests from arrival to receipt, on the built-in lab: three requests, two batches, receipts, purge.
# Usage: bash examples/deletion_requests.sh [FOLDER]. docs/deletion_requests.md explains every step.
set -euo pipefail
project=${1:-runs/requests}
unsee=${UNSEE:-unsee}
python=${PYTHON:-python3}
show() { printf '\n$ %s\n' "$*" | sed "s|$unsee|unsee|"; "$@"; }
day() { "$python" -c "from datetime import date, timedelta; print(date.today() - timedelta($1))"; }

if [ -e "$project" ]; then echo "$project is there already: give another folder." >&2; exit 2; fi
pictures=$(mktemp -d); trap 'rm -rf "$pictures"' EXIT
"$python" - "$pictures" <<'PY'
import sys
from unsee.data.open import open_benchmark
rows = open_benchmark("lab").examples("eval")
stranger = [row for row in rows if row.role == "stranger"]
new = list({row.image.key: row.image for row in stranger if row.entity == stranger[0].entity}.values())
other = next(row.image for row in rows if row.entity == "person-005" and row.image is not None)
for name, image in {**{f"unknown-{place}": image for place, image in enumerate(new)}, "other": other}.items():
    image.load().save(f"{sys.argv[1]}/{name}.png")
PY

echo "# Day 1: somebody whom the model knows"
first=$(show $unsee request add --project "$project" --model lab --data lab --received "$(day 2)" --name "Stotek Grapukos" | tee /dev/stderr | tail -1)
show $unsee request approve "$first" --project "$project"
show $unsee request run --project "$project" || test $? = 3  # 3: something is left

echo; echo "# Day 2: somebody whom the model does not know"
second=$(show $unsee request add --project "$project" --received "$(day 1)" --name "Maren Holt" --image "$pictures"/unknown-*.png | tee /dev/stderr | tail -1)
show $unsee request close "$second" --project "$project"

echo; echo "# Day 3: somebody with a picture of somebody else, who is to be kept"
third=$(show $unsee request add --project "$project" --name "Truvun Sifutrik" --image "$pictures/other.png" | tee /dev/stderr | tail -1)
show $unsee request show "$third" --project "$project"
show $unsee request approve "$third" --project "$project"
show $unsee request run --project "$project" || test $? = 3

echo; echo "# The requests are answered, and their data go"
show $unsee request close "$first" --project "$project"
show $unsee request close "$third" --project "$project"
show $unsee request purge --project "$project" --yes

echo; echo "# What can be checked"
show $unsee request list --project "$project"
show $unsee request verify --project "$project"
for receipt in "$project"/receipts/*.receipt.json; do
  show $unsee receipt verify "$receipt" --project "$project"
done
