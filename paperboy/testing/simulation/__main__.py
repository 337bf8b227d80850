"""``python -m paperboy.testing.simulation`` is ``paperboy-sim``."""

import sys

from paperboy.testing.simulation.command import main

sys.exit(main())
