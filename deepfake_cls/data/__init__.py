"""Images in: which there are, decoded once, handed out in batches."""
