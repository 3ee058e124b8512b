"""What every test shares: Hypothesis without a deadline, since a busy machine is not a wrong answer."""

from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
