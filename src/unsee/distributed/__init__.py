"""Distributed runs: process group, file locks, FSDP, DeepSpeed, optimizer state."""
