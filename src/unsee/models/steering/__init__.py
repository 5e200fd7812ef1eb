"""Steering of hidden states with forward hooks."""
