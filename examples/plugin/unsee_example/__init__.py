"""A method and a metric for unsee, outside of its tree."""
