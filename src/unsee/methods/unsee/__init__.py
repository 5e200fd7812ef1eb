"""Method of this project: distillation of a selective teacher into a shrunk student."""
