"""The two listeners, and the way of a request between them and the model."""
