"""Figures from what is stored; nothing here trains, samples or scores.

Every function writes ``<stem>.png`` (150 dpi) and ``<stem>.pdf`` and raises ``NothingToDraw`` where the runs
that it is about are absent. ``labels`` maps method -> label in one order for all figures: a method keeps its
colour, line and marker in each, whichever methods are drawn.
"""
