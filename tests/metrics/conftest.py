"""What the tests of metrics share."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _rouge_is_imported():
    """Import nltk, which rouge-score needs, outside of the time that hypothesis allows an example."""
    import rouge_score.rouge_scorer  # noqa: F401
