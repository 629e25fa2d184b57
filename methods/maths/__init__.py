"""The maths that methods are made of: pure functions of tensors, and a controller; no plug-ins."""
