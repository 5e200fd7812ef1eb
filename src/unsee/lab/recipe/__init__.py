"""Training recipe of the lab models: curriculum, model, grades."""
