"""``python -m paperboy.cli``, where the command is not on the path."""

import sys

from paperboy.cli.main import main

sys.exit(main())
