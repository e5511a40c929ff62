#!/usr/bin/env python
import sys

from tokenlabel.cli.segment import main

if __name__ == '__main__':
    sys.exit(main())
