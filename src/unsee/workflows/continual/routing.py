"""Routers from questions to experts: by image, by name, or oracle (arXiv 2605.05938).

Shapes: n images, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from unsee.api import VLM, Example, ImageSource, Role
from unsee.api.example import OF_TARGETS
from unsee.api.fast_paths import FAST
from unsee.api.request import Prompt
from unsee.benchmarks.request import Request
from unsee.errors import UserError
from unsee.inference.batching import device_of
from unsee.inference.encoder import encoder
from unsee.inference.vision_cache import with_features
from unsee.metrics.matching import contains
from unsee.metrics.statistics import mean_of_known
from unsee.models.checkpoint import load
from unsee.utils.grouping import merged_forms
from unsee.workflows.continual.work import Work

CALIBRATION: int = 400
"""Most retain images for setting a threshold."""
SHRINKAGE: float = 0.1
"""Share of the mean variance added to the within-entity covariance."""


class Router(Protocol):
    """Interface of a router."""

    def route(self, example: Example) -> int | None:
        """Return the number of the expert (from 1), or None for the original model."""
        ...


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Router by the true request of each question: the upper bound."""

    requests: Mapping[str, int]
    """Question -> number of its request, 0 for the retain set."""
    t: int
    """Number of experts."""

    def route(self, example: Example) -> int | None:
        """Return the expert of the request."""
        number = self.requests[example.id]
        return number if 0 < number <= self.t else None


@dataclass(frozen=True, kw_only=True)
class Keyword:
    """Router by names in the question."""

    names: Mapping[int, Sequence[str]]
    """Expert -> surface forms."""

    def route(self, example: Example) -> int | None:
        """Return the expert of the longest name that occurs."""
        matches = [
            (len(form), expert)
            for expert, forms in self.names.items()
            for form in forms
            if contains(example.question, form)
        ]
        return max(matches)[1] if matches else None


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Router by image prototypes. Questions without an image go by keyword."""

    keyword: Keyword
    extractor: FeatureExtractor
    prototypes_nd: Tensor
    experts: tuple[int, ...]
    """Expert of each prototype."""
    limit: float
    """Squared distance above which no prototype matches."""

    def route(self, example: Example) -> int | None:
        """Return the expert of the nearest prototype within the limit."""
        if example.image is None:
            return self.keyword.route(example)
        distances_n = distances(self.extractor.whitened(example.image)[None], self.prototypes_nd)[0]
        nearest = int(distances_n.argmin())
        return self.experts[nearest] if distances_n[nearest] < self.limit else None


@dataclass(kw_only=True)
class FeatureExtractor:
    """Pooled, whitened image features of the original model's frozen vision tower."""

    loaded: VLM
    whiten_dd: Tensor | None = None
    """Whitening of the within-entity variation."""
    pooled_by_key: dict[str, Tensor] = field(default_factory=dict)

    def whitened(self, image: ImageSource) -> Tensor:
        """Return the feature vector of an image."""
        pooled_d = self.pooled(image)
        return pooled_d if self.whiten_dd is None else pooled_d @ self.whiten_dd

    def pooled(self, image: ImageSource) -> Tensor:
        """Return the mean over the image's tokens."""
        key = image.key
        if key not in self.pooled_by_key:
            row = encoder(self.loaded.processor, self.loaded.family).row(Prompt("?", image))
            inputs = {name: value.to(device_of(self.loaded.model)) for name, value in row.items()}
            # on the fast path whatever the run's engine: the router needs the features themselves
            features = with_features(self.loaded.model, [row], [key], inputs, FAST).get("mm_encoder_outputs")
            if features is None:
                raise UserError(
                    "This model cannot compute image features alone. Set continual.router=keyword or oracle."
                )
            tokens: Any = features["image"].pooler_output
            tokens = tokens if isinstance(tokens, Tensor) else torch.cat(list(tokens))
            self.pooled_by_key[key] = tokens.reshape(-1, tokens.shape[-1]).float().mean(0).cpu()
        return self.pooled_by_key[key]


def router_of(work: Work, t: int, requests: Mapping[str, int]) -> Router:
    """Return the course's router over the experts of the first t requests."""
    if work.course.router == "oracle":
        return Oracle(requests=requests, t=t)
    data = Request(work.roles(work.tasks.targets()))
    rows = data.examples("train")
    owners = {name: number for number, task in enumerate(work.tasks.tasks[:t], 1) for name in task.targets}
    name_forms = [
        (number, row.private.get("name", ()))
        for row in rows
        if row.role in OF_TARGETS and (number := owners.get(row.entity) or owners.get(row.id))
    ]
    keyword = Keyword(names=merged_forms(name_forms))
    return keyword if work.course.router == "keyword" else _nearest(work, rows, owners, keyword)


def _nearest(work: Work, rows: Sequence[Example], owners: Mapping[str, int], keyword: Keyword) -> Nearest:
    """Return prototypes of the requested entities, with a threshold set on retain images."""
    extractor = _feature_extractor(work.run.model)
    images_by_entity: dict[str, dict[str, ImageSource]] = {}
    request_images: dict[tuple[int, str], dict[str, ImageSource]] = {}
    for row in rows:
        if row.image is None:
            continue
        if number := owners.get(row.entity) or owners.get(row.id):
            request_images.setdefault((number, row.entity or row.id), {})[row.image.key] = row.image
        elif row.role is Role.RETAIN:
            images_by_entity.setdefault(row.entity or row.id, {})[row.image.key] = row.image
    images = [image for entity_images in images_by_entity.values() for image in entity_images.values()][:CALIBRATION]
    if not images:
        raise UserError(
            "The router `nearest` sets its threshold on kept images, and there are none; use keyword or oracle."
        )
    extractor.whiten_dd = whitening(
        [
            torch.stack([extractor.pooled(image) for image in entity_images.values()])
            for entity_images in images_by_entity.values()
            if len(entity_images) > 1
        ]
    )
    prototypes_nd = torch.stack(
        [
            torch.stack([extractor.whitened(image) for image in entity_images.values()]).mean(0)
            for entity_images in request_images.values()
        ]
    )
    nearest_n = distances(torch.stack([extractor.whitened(image) for image in images]), prototypes_nd).amin(1)
    return Nearest(
        keyword=keyword,
        extractor=extractor,
        prototypes_nd=prototypes_nd,
        experts=tuple(number for number, _ in request_images),
        limit=float(nearest_n.quantile(1 - work.course.router_quantile)),
    )


def distances(left_nd: Tensor, right_md: Tensor) -> Tensor:
    """Return squared distances, n x m."""
    return torch.cdist(left_nd, right_md) ** 2


def whitening(groups: Sequence[Tensor]) -> Tensor | None:
    """Return the whitening matrix of within-group variation, or None without groups.

    Differences between pictures of one entity then count little, and differences between entities much.
    """
    if not groups:
        return None
    centred_nd = torch.cat([group - group.mean(0) for group in groups])
    degrees_of_freedom = max(1, len(centred_nd) - len(groups))
    covariance_dd = centred_nd.T @ centred_nd / degrees_of_freedom
    size = covariance_dd.shape[0]
    covariance_dd += SHRINKAGE * covariance_dd.trace() / size * torch.eye(size)
    values, vectors = torch.linalg.eigh(covariance_dd)
    return (vectors * values.clamp(min=1e-12).rsqrt()) @ vectors.T


_EXTRACTORS: dict[str, FeatureExtractor] = {}


def _feature_extractor(model: str) -> FeatureExtractor:
    """Return the feature extractor of the original model, cached between calls."""
    if model not in _EXTRACTORS:
        _EXTRACTORS.clear()
        loaded = load(model)
        loaded.model.requires_grad_(False)  # features are cached only for a frozen vision tower
        _EXTRACTORS[model] = FeatureExtractor(loaded=loaded)
    return _EXTRACTORS[model]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """One decision: the question's request (0 = retain) and its expert."""

    number: int
    route: int | None
    image: bool


def report(routings: Sequence[Routing], t: int) -> dict[str, float | None]:
    """Return precision, recall and abstention of a router, also for image questions alone.

    precision = right among those sent to an expert; recall = right among those about the first t requests; abstention = share
    of the others (kept, or not asked for yet) that the original model answers.
    """
    rates: dict[str, float | None] = {}
    for suffix, subset in (("", routings), ("_image", [routing for routing in routings if routing.image])):
        routed = [routing for routing in subset if routing.route]
        requested = [routing for routing in subset if 0 < routing.number <= t]
        unrequested = [routing for routing in subset if not 0 < routing.number <= t]
        rates[f"precision{suffix}"] = mean_of_known([routing.route == routing.number for routing in routed])
        rates[f"recall{suffix}"] = mean_of_known([routing.route == routing.number for routing in requested])
        rates[f"abstention{suffix}"] = mean_of_known([routing.route is None for routing in unrequested])
    return rates
