"""Contracts of methods, attacks, benchmarks, families and metrics, for tests.

Each contract is a function to call from a test; it raises AssertionError with what does not hold. `tiny` has a random
model of 60,000 parameters, its processor, and examples; nothing is downloaded.
"""

from unsee.testing.attacks import attack_contract
from unsee.testing.benchmarks import benchmark_contract
from unsee.testing.families import family_contract
from unsee.testing.methods import method_contract
from unsee.testing.metrics import metric_contract

__all__ = ["attack_contract", "benchmark_contract", "family_contract", "method_contract", "metric_contract"]
