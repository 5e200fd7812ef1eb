"""Local page that asks the model before and after unlearning the same question."""
