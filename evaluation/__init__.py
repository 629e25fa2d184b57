"""Reads files and writes files, never trains: sampling, scoring, statistics, tables, figures, tracking."""
