"""Several processes: process group, FSDP, DeepSpeed, optimizer state."""
