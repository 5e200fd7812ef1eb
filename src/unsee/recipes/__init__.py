"""Runs with the settings that a paper gives for its real models, one file each; a recipe returns a `Run` and starts nothing."""
