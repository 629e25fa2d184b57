"""Rendered from stored scores and histories: tables, figures, claims, verdicts, MLflow. Opens no model."""
