"""Values that travel through the phases."""
