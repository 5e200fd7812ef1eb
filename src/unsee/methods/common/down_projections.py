"""Second matrices of MLPs, whose inputs are the activations of neurons."""

from __future__ import annotations

import re
from typing import Final

from torch.nn import Linear, Module

DOWN: Final = re.compile(r"(?:^|\.)(?:down_proj|fc2|linear_fc2|w2|c_proj)(?:$|\.)")
"""Names of the second matrix of an MLP, alone or within the name of a weight."""


def down_projections(model: Module, part: str) -> dict[str, Linear]:
    """Return the second MLP matrices among the modules whose full names match, by name.

    Args:
        model: The model.
        part: Regular expression of a part, of `Family.parts`.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and DOWN.search(name) and re.fullmatch(part, name)
    }
