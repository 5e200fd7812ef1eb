"""SIU (arXiv 2405.12523): method, targets, substitute names."""
