"""The drawn documents of the lab: archive, drawing, lessons."""
