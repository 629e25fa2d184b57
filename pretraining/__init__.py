"""How the embedded world's base models and scorers were made; ``rebuild_base`` makes them again."""
