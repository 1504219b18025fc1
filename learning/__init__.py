"""What improves the bot by night: training data, the LoRA recipe, merge, proof, publication."""
