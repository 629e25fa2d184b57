"""Rewards in a process and an environment of their own, behind HTTP on the loopback interface.

``environment`` builds what ``rewards/environments/<name>.txt`` pins, ``server`` runs inside it, ``client``
starts the server when the first image comes and ends it with the process that uses it, ``wire`` is the
form of a message. ``rewards.get`` returns the client for every reward that names an environment.
"""
