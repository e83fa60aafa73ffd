"""Of this client; the project's."""
VERSION = "0.1.0"
