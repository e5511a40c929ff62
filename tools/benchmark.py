#!/usr/bin/env python
import sys

from tokenlabel.cli.benchmark import main

if __name__ == '__main__':
    sys.exit(main())
