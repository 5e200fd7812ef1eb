"""Shared parts of methods: reference model, guidance rollouts, Prompt Decouple."""
