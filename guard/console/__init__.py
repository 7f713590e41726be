"""The operator's web page: static files, served by the admin listener."""
