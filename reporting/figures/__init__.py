"""Figures from what is stored, found by their files; nothing here trains, samples or scores.

Every file has a function ``drawings(grid)`` (``reporting/draw.py``) that yields the name of each figure and
what draws it at a stem, as ``<stem>.png`` (150 dpi) and ``<stem>.pdf``. Drawing raises ``NothingToDraw``
where the runs that a figure is about are absent. Labels map method -> label in one order for all figures: a
method keeps its colour, line and marker in each, whichever methods are drawn.
"""
