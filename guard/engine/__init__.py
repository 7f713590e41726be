"""What happens to a request between reading and writing it; pure."""
