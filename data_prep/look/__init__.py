"""Looking: pictures, pages and progress for people."""
