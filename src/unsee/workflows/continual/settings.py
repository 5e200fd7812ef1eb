"""Settings of continual unlearning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unsee.errors import UserError

Mode = Literal["sequential", "merge", "experts", "joint"]
Merge = Literal["sum", "ties", "dare", "mcu"]
Retain = Literal["all", "none", "fixed_sample", "fresh_sample"]
Router = Literal["nearest", "keyword", "oracle"]


@dataclass(frozen=True, kw_only=True)
class Course:
    """Settings of a sequence: `continual:` in a run file, `--set continual.x=y`.

    After ICU-Bench (arXiv 2605.05938).
    """

    mode: Mode = "sequential"
    """sequential = each request from the model after the one before; merge = one adapter per request on the
    original model, then merged; experts = the same adapters, one routed to per question; joint = all requests so far at
    once from the original model."""
    requests: str = ""
    """File with the requests; empty = `tasks` requests made from the data."""
    tasks: int = 0
    """Number of requests, without a file."""
    per_task: int = 1
    """Entities in each request, without a file."""
    order: int = 0
    """0 = the requests as they are listed; n = their n-th random permutation."""
    reference: Literal["previous", "initial"] = "previous"
    """Sequential mode: reference model of the method (NPO, KL): the one before this request, or the original.
    `initial` continues one adapter on the original model; `previous` adds a new one to the merged model [inferred]."""
    retain_policy: Retain = "all"
    """Retain data of a request (never other requests): all, none, `retain_rows` rows that are the same for all
    requests, or a new sample for each [inferred]."""
    retain_rows: int = 64
    """Rows in a sample."""
    joint_steps: Literal["grow", "fixed"] = "grow"
    """Joint mode: `training.max_steps` counts for each request, or for all together [inferred]."""
    merge: Merge = "sum"
    """Merge mode: sum = task arithmetic; ties, dare; mcu = MCU-style, our reconstruction."""
    scale: float = 1.0
    """Factor of the merged update."""
    density: float = 0.2
    """TIES: share of each update's entries that is kept, largest first."""
    drop: float = 0.9
    """DARE: share of each update's entries that is dropped."""
    merge_rank: int = 0
    """Rank of the merged adapter for ties and dare; 0 = exact."""
    adapters: str = ""
    """Merge and experts mode: folder of the adapters, shared by runs with the same model, data and settings; empty = inside the run."""
    router: Router = "nearest"
    """Experts mode: nearest = images by prototypes of image features, text by keyword; keyword = names in the question;
    oracle = the true request (upper bound)."""
    router_quantile: float = 0.99
    """A prototype matches images that are nearer than this share of the retain images [inferred]."""
    headline: tuple[str, ...] = ()
    """Measures of remembering, one per question; none = name and fact, else choice, cloze, accuracy or
    rougeL_recall, whichever the data have first [inferred]."""
    kinds: tuple[str, ...] = ()
    """Only these kinds of question are judged; none = all."""
    limit: int = 0
    """Evaluation questions per requested entity and kind, with and without image; 0 = all."""
    retain_limit: int = 0
    """Evaluation questions per kind of the retain set; 0 = all."""
    gold: str = ""
    """Model trained without any requested entity, for normalised forgetting; empty = none."""
    fr_support: Literal["common", "running"] = "common"
    """Forgetting rebound compares equal sets of requests, or each mean over its own."""
    max_new_tokens: int = 96
    """Length limit of every judged answer; `eval.max_new_tokens` overrides it."""
    batch_size: int = 64
    """Prompts per batch of the evaluation; `eval.batch_size` overrides it."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others, each with what it counts with."""
        merges, routes = self.mode == "merge", self.mode == "experts"
        with_merge, with_experts = "with continual.mode=merge", "with continual.mode=experts"
        uses = (
            (not self.requests, "without continual.requests", "per_task"),
            (self.mode == "sequential", "with continual.mode=sequential", "reference"),
            (self.retain_policy.endswith("sample"), "with a sample as continual.retain_policy", "retain_rows"),
            (self.mode == "joint", "with continual.mode=joint", "joint_steps"),
            (merges, with_merge, "merge"),
            (merges, with_merge, "scale"),
            (merges and self.merge == "ties", f"{with_merge} and continual.merge=ties", "density"),
            (merges and self.merge == "dare", f"{with_merge} and continual.merge=dare", "drop"),
            (merges and self.merge in ("ties", "dare"), f"{with_merge} and continual.merge=ties or dare", "merge_rank"),
            (merges or routes, f"{with_merge} or experts", "adapters"),
            (routes, with_experts, "router"),
            (routes and self.router == "nearest", f"{with_experts} and continual.router=nearest", "router_quantile"),
        )
        yield from ((f"continual.{name}", needed) for used, needed, name in uses if not used)

    def __post_init__(self) -> None:
        """Reject settings that define no sequence."""
        if bool(self.requests) == bool(self.tasks):
            raise UserError(
                "Give either --requests FILE or --tasks N: what is to be forgotten, one request after the other."
            )
        for name in ("tasks", "order", "limit", "retain_limit", "merge_rank", "retain_rows"):
            if vars(self)[name] < 0:
                raise UserError(f"continual.{name} must not be negative, got {vars(self)[name]}.")
        if self.retain_policy.endswith("sample") and not self.retain_rows:
            raise UserError(
                "continual.retain_rows must be at least 1 with a sample as continual.retain_policy, got 0; retain_policy=none keeps "
                "no rows."
            )
        for name in ("per_task", "max_new_tokens", "batch_size"):
            if vars(self)[name] < 1:
                raise UserError(f"continual.{name} must be at least 1, got {vars(self)[name]}.")
        if not 0 < self.scale < math.inf:
            raise UserError(f"continual.scale must be a number above 0, got {self.scale}.")
        if not 0 < self.density <= 1 or not 0 <= self.drop < 1 or not 0 < self.router_quantile <= 1:
            raise UserError(
                "continual needs 0 < density <= 1, 0 <= drop < 1 and 0 < router_quantile <= 1; "
                f"got {self.density}, {self.drop}, {self.router_quantile}."
            )
