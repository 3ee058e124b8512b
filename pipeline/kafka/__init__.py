"""The Kafka edge: slices in, batches out, and what the log is called."""
