"""From shards of images and curated texts to resumable training batches."""
