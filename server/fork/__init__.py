"""`arena fork`: what a person asks for, what comes back as files, a page and a table."""
