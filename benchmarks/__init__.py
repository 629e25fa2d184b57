"""What the suite costs on the machine at hand: ``python -m benchmarks``."""
