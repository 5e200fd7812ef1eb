"""One class of a response where the rules allow only one."""

from unsee.api import Response, Vocabulary
from unsee.metrics.aftermath import Aftermath, possible


def classify(response: Response, vocabulary: Vocabulary) -> Aftermath | None:
    """Return the only possible class, None if there are several."""
    classes = possible(response, vocabulary)
    return next(iter(classes)) if len(classes) == 1 else None
