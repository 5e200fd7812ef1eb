"""SIU: the method, its targets and substitute names."""
