"""Reading: one file -> its header, or its pixels."""
