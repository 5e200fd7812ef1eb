"""Attacks that try to recover unlearned knowledge, one file each, none yet."""
