"""Cost of R-MUSE's steering per decoding step: `python -m perf.steering`.

Options: `--width 1024 --depth 12 --rows 8`.

Two models share their weights, one is steered, with the gate open for every row. They take the same steps in turn, each with a cache
of its own, and the CPU seconds of a step are compared pair by pair, so that whoever else uses the machine slows both. Random weights: the
cost does not depend on what is said. Shapes: b rows, t tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import LlamaConfig, LlamaForCausalLM

from unsee.models.steering.artifact import Artefact, Directions, Rule
from unsee.models.steering.hooks import attach

RANK, STATES = 10, 64
"""Rank of the subspaces and states of ideal refusals, as on the lab."""
PROMPT = 64


def main() -> None:
    """Measure and print one line of JSON."""
    asked = _parser().parse_args()
    torch.manual_seed(0)
    plain, steered = _twins(asked.width, asked.depth)
    steering = attach(steered, _artefact(asked.width, asked.depth))
    ratios = measure(plain, steered, rows=asked.rows, steps=asked.steps)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    if steering.firing.fired != asked.rows or not steering.firing.degrees:
        raise SystemExit("No row was steered; there is nothing to measure.")
    said = {"width": asked.width, "depth": asked.depth, "rows": asked.rows, "threads": torch.get_num_threads()}
    print(
        json.dumps({**said, "ratio": round(float(np.median(ratios)), 4), "interval": [round(low, 4), round(high, 4)]})
    )


def measure(plain: LlamaForCausalLM, steered: LlamaForCausalLM, *, rows: int, steps: int) -> np.ndarray:
    """Return the time of a steered step as a multiple of a plain one, for every pair of steps."""
    ids_bt = torch.randint(0, plain.config.vocab_size, (rows, PROMPT))
    caches = {name: _prefilled(model, ids_bt) for name, model in (("plain", plain), ("steered", steered))}
    models = {"plain": plain, "steered": steered}
    took: dict[str, list[float]] = {"plain": [], "steered": []}
    for step in range(steps):
        for name in ("plain", "steered") if step % 2 else ("steered", "plain"):
            took[name].append(_step(models[name], caches[name], ids_bt[:, :1]))
    warm = steps // 10
    return np.array(took["steered"][warm:]) / np.array(took["plain"][warm:])


@torch.inference_mode()
def _prefilled(model: LlamaForCausalLM, ids_bt: Tensor) -> Any:
    return model(input_ids=ids_bt, use_cache=True).past_key_values


@torch.inference_mode()
def _step(model: LlamaForCausalLM, cache: Any, ids_bt: Tensor) -> float:
    start = time.process_time()
    model(input_ids=ids_bt, past_key_values=cache, use_cache=True)
    return time.process_time() - start


def _twins(width: int, depth: int) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """Return two models with the same weights in memory once."""
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=depth,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 64),
        vocab_size=8000,
    )
    one = LlamaForCausalLM(config).eval()
    with torch.device("meta"):
        other = LlamaForCausalLM(config).eval()
    other.load_state_dict(one.state_dict(), assign=True)
    other.model.rotary_emb = one.model.rotary_emb
    return one, other


def _artefact(width: int, depth: int) -> Artefact:
    """Return random directions for the middle third of the layers."""
    layers = tuple(range(-(-depth // 3), 2 * depth // 3 + 1))
    rule = Rule(layers=layers, scoring_layer=layers[len(layers) // 2], gate="always", max_rotation_deg=65.0)
    return Artefact(rule=rule, directions={layer: _directions(width) for layer in layers})


def _directions(width: int) -> Directions:
    basis_dk = torch.linalg.qr(torch.randn(width, RANK))[0]
    states_nd = normalize(torch.randn(STATES, width), dim=-1)
    v_d = normalize(torch.randn(width), dim=0)
    return Directions(
        un_text=basis_dk,
        un_mm=basis_dk,
        rrs=torch.linalg.qr(torch.randn(width, RANK))[0],
        v_text=v_d,
        v_mm=v_d,
        mu_text=states_nd,
        mu_mm=states_nd,
        contrast=v_d,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("width", 1024), ("depth", 12), ("rows", 8), ("steps", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser


if __name__ == "__main__":
    main()
