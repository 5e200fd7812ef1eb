"""What several methods use: reference model, guidance, prompt decoupling."""
