"""Adapters to the model server that is being guarded."""
