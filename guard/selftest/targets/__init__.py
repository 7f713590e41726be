"""Targets other than the lab: the operator's own model, and a Guard that runs already."""
