"""What can be known of a cluster before it starts: its file, its machines, its storage."""
