"""LVLM architectures, one file each."""
