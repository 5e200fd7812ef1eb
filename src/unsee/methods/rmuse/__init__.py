"""R-MUSE (arXiv 2512.17911): method and hidden states."""
