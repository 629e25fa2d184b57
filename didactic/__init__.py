"""GARDO's didactic experiment (arXiv 2512.24138, Fig. 3): flow-model RL where every density is known."""
