"""Models steered by hooks on their hidden states."""
