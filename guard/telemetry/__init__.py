"""What operators see of a running Guard."""
