"""Many workers of a group, in one event loop, with faults that a seed draws; and a judgement over what they did.

    outcome = simulate(4711)
    assert outcome.broken is None, outcome.broken

See docs/testing.md.
"""

from paperboy.testing.simulation.run import Outcome, simulate

__all__ = ["Outcome", "simulate"]
