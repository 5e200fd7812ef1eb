"""Side-by-side measurements: unsee, the conventional way, and the bare passes that a loss needs."""
