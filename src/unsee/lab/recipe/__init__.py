"""The training recipe of the lab's models: curriculum, model, grades."""
