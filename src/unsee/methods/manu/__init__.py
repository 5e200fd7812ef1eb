"""MANU (arXiv 2502.15910): method of the paper, published code, neuron activity."""
