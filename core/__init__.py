"""What every package stands on: files, settings, command lines, seeds, prompts, plug-ins. It imports none."""
