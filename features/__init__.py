"""What we know about users and items, as maths over time. No clock, no network but `features/store/redis.py`."""
