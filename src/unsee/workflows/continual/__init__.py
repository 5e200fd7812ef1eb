"""Continual unlearning: sequential, merged, by experts, or jointly ("ICU-style").

continual.yaml   what was asked for, the requests in order     judged/t-003/   answers and their worth after request 3
t-003/           run folder of request 3 (or the merged model) adapters/       one run folder per request, from the original model
continual.json   matrices, curves, metrics                     continual.html   the page
"""

from unsee.workflows.continual.page import write_page as compare_continual
from unsee.workflows.continual.sequence import continual, continual_run

__all__ = ["compare_continual", "continual", "continual_run"]
