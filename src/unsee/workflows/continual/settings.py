"""How a sequence of deletion requests is made, worked through and judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unsee.errors import UserError

Mode = Literal["sequential", "merge", "experts", "joint"]
Merge = Literal["sum", "ties", "dare", "mcu"]
Retain = Literal["all", "none", "fixed_sample", "fresh_sample"]
Router = Literal["nearest", "keyword", "oracle"]


@dataclass(frozen=True, kw_only=True)
class Course:
    """The fields are what `continual:` in a run file and `--set continual.x=y` may name (ICU-Bench, arXiv 2605.05938)."""

    mode: Mode = "sequential"
    """sequential = each request from the model that the one before it left; merge = one adapter a request from the start model, then
    merged; experts = the same adapters, one chosen for each question; joint = all requests so far at once from the start model."""
    requests: str = ""
    """File with the requests; empty = `tasks` requests made from the data."""
    tasks: int = 0
    """Number of requests, without a file."""
    per_task: int = 1
    """Entities in each request, without a file."""
    order: int = 0
    """0 = the requests as they are listed; n = the same requests in the n-th drawn order."""
    reference: Literal["previous", "initial"] = "previous"
    """Sequential mode: what a method compares with (NPO, KL) is the model before this request, or the start model. `initial` goes on
    training one adapter on the start model; `previous` lays a new one on the merged model [inferred]."""
    retain_policy: Retain = "all"
    """What a request's unlearning sees of what is kept (never of other requests): all of it, nothing, `retain_rows` rows that
    are the same for all requests, or drawn anew for each [inferred]."""
    retain_rows: int = 64
    """Rows in a sample."""
    joint_steps: Literal["grow", "fixed"] = "grow"
    """Joint mode: `training.max_steps` counts for each request, or for all together [inferred]."""
    merge: Merge = "sum"
    """Merge mode: sum = task arithmetic; ties, dare; mcu = MCU-style, our reconstruction."""
    scale: float = 1.0
    """Factor on what is merged."""
    density: float = 0.2
    """TIES: share of each update's entries that is kept, largest first."""
    drop: float = 0.9
    """DARE: share of each update's entries that is dropped."""
    merge_rank: int = 0
    """Rank of the merged adapter where the merger has none of its own (ties, dare); 0 = whatever is exact."""
    adapters: str = ""
    """Merge and experts mode: folder of the adapters, shared by runs with the same model, data and settings; empty = inside the run."""
    router: Router = "nearest"
    """Experts mode: nearest = images by prototypes of vision features, text by keyword; keyword = names in the question; oracle =
    knows whom a question is about (upper bound)."""
    router_quantile: float = 0.99
    """A prototype fires on an image that is nearer than this share of the kept images [inferred]."""
    headline: tuple[str, ...] = ()
    """Measures that count as remembering, one of them a question; none = name and fact, else choice, cloze, accuracy or
    rougeL_recall, whichever the data have first [inferred]."""
    kinds: tuple[str, ...] = ()
    """Only these kinds of question are judged; none = all."""
    limit: int = 0
    """Judged questions for each requested entity and kind, with and without image; 0 = all."""
    retain_limit: int = 0
    """Judged questions for each kind of everything that is kept; 0 = all."""
    gold: str = ""
    """Model trained without any requested entity, for normalised forgetting; empty = none."""
    fr_support: Literal["common", "running"] = "common"
    """Forgetting rebound compares equal sets of requests, or each mean over its own."""
    max_new_tokens: int = 96
    """Length limit of every judged answer."""
    batch_size: int = 64
    """Questions asked at once."""

    def __post_init__(self) -> None:
        """Refuse what no sequence could be made with."""
        if bool(self.requests) == bool(self.tasks):
            raise UserError(
                "Give either --requests FILE or --tasks N: what is to be forgotten, one request after the other."
            )
        for name in ("tasks", "order", "limit", "retain_limit", "merge_rank", "retain_rows"):
            if vars(self)[name] < 0:
                raise UserError(f"continual.{name} must not be negative, got {vars(self)[name]}.")
        for name in ("per_task", "max_new_tokens", "batch_size"):
            if vars(self)[name] < 1:
                raise UserError(f"continual.{name} must be at least 1, got {vars(self)[name]}.")
        if not 0 < self.density <= 1 or not 0 <= self.drop < 1 or not 0 < self.router_quantile <= 1:
            raise UserError(
                "continual needs 0 < density <= 1, 0 <= drop < 1 and 0 < router_quantile <= 1; "
                f"got {self.density}, {self.drop}, {self.router_quantile}."
            )
