"""What a command starts: unlearning, estimates, sweeps, the demo."""
