"""``python -m search`` is ``paretune run``."""

import sys

from search.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
