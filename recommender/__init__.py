"""Candidates in, ranked list out. Knows no clock, no Kafka, no Redis: time, randomness and ids are arguments."""
