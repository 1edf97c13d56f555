# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.soak [SECONDS]`: soak, tell what was found; status 1 if it grew."""

import sys

from tests.soak.run import soak


def main() -> int:
    """Run it for an hour, or as long as is asked."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    soaked = soak(seconds, say=lambda line: print(line, flush=True))
    print(soaked.report())
    bad = soaked.complaints()
    print("\n".join(bad) or "nothing has grown")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
