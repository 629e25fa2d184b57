"""Does a checkpoint hack its reward? Anybody's adapter, checkpoint or images beside the base model."""
