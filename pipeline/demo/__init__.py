"""The demo: embedded servers, a worker, traffic that knows the truth, and a view of what comes out."""
