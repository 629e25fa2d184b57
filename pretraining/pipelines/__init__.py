"""How the shipped tiny base model is made: scenes, autoencoder, then the flow-matching transformer."""
