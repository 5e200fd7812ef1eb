"""Interface of an unlearning method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from unsee.api.finite import require_finite
from unsee.api.training import Training, Tune
from unsee.errors import UserError

if TYPE_CHECKING:
    from unsee.api.session import Session


Promise = Literal["person", "picture"]
Group = Literal["loss", "weights", "steering", "reference"]
"""What a method works by."""
GROUPS: Final[Mapping[Group, str]] = {
    "loss": "train on a loss over the forget set",
    "weights": "choose or edit weights",
    "steering": "change no weight: act when the model answers",
    "reference": "reference rows for comparison, no unlearning",
}
"""Groups of methods in the order of lists, each with its meaning."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Requirements of a method: memory of a training step (for estimates), settings of `Training` that count, whole weights."""

    trains: bool = True
    """Whether weights change in training steps."""
    edits: bool = False
    """Whether weights change at once, without training steps."""
    rows: int = 1
    """Rows per forget example of a batch, in one graph."""
    retain: int = 0
    """Retain rows per forget example of a batch, in their own graph."""
    teacher: bool = False
    """Whether reference logits are held beside the model's own."""
    likelihoods: bool = False
    """Whether log-likelihoods under the reference model are needed (a second model with the plain engine)."""
    generates: bool = False
    """Whether the original model answers the forget questions before training."""
    adapters: bool = False
    """Whether adapters are trained with full tuning, too, so that `training.rank` and `alpha` count."""
    stops: bool = True
    """Whether `training.stop` is obeyed."""
    checks: bool = False
    """Whether the method checks something by itself every `training.check_every` steps."""
    before: float = 0.0
    """Extra bytes per trained weight before training only (sums of a saliency sweep)."""
    beside: float = 0.0
    """Extra bytes per trained weight throughout (masks, second moments)."""
    full_weights: str = ""
    """What the method does with the base's own weights, which a quantised base does not have; "" = nothing."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Settings of the contract tests for a method (`unsee.testing.method_contract`)."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that keep a test short; the other ones have their defaults."""
    tunes: tuple[Tune, ...] = ("lora", "full")
    """Ways of tuning that the method accepts. It must reject the others with a UserError that names one of these; `forget`
    rejects them before it opens the model."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings of one method (fields with the paper's defaults) and its algorithm.

    Abstract: one final subclass per file in methods/.
    """

    group: ClassVar[Group] = "loss"
    """Group in lists of methods, as a plain string."""
    trial: ClassVar[Trial] = Trial()
    """Settings of the contract tests."""
    promise: ClassVar[Promise] = "person"
    """What is forgotten: the person, by picture and by name, or only who is in a picture. The gold model differs accordingly."""

    def __post_init__(self) -> None:
        """Reject NaN, infinite settings, negative term weights, and floors that stop all ascent.

        Subclasses with own checks call this first.
        """
        require_finite(self, "method")
        _require_signs(self)

    @abstractmethod
    def unlearn(self, session: Session) -> None:
        """Unlearn the forget set: change `session.model` in place, or set `session.instruction`."""

    def needs(self) -> Needs:
        """Return the memory requirements, here one row per example, and any retain rows."""
        return Needs(retain=int(bool(vars(self).get("retain_weight", 0))))

    def tunes(self) -> tuple[Tune, ...]:
        """Return the ways of tuning that the method accepts with these settings."""
        return self.trial.tunes

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others, each with what it counts with.

        `forget` refuses them where they are given: `("method.strength", "with method.update=additive")`. Settings of `training`
        that hold for all methods follow from `needs`.
        """
        yield from ()


def _require_signs(method: Method) -> None:
    """Raise for a negative weight, and for a floor that no log-likelihood lies above.

    A negative weight would invert its term.
    """
    for name, value in vars(method).items():
        if not isinstance(value, (int, float)):
            continue
        if (name in ("alpha", "weight") or name.endswith("_weight")) and value < 0:
            raise UserError(
                f"method.{name} must not be negative, got {value}: its term would work against its purpose. Set 0 to leave the "
                "term out."
            )
        if name == "ga_floor" and value >= 0:
            raise UserError(
                f"method.ga_floor must be below 0, got {value}: it is a mean log-likelihood, and none lies above 0, so nothing "
                "would be forgotten. Try -4, or leave it out."
            )
