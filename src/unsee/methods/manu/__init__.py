"""MANU (arXiv 2502.15910): the form of the paper and of the published code, activity of neurons."""
