"""Ways to bring the forgotten back, one file each; none is here yet."""
