"""A trained run's images and their scores: what opens models after training, and the schema of scores."""
