#!/usr/bin/env python
import sys

from tokenlabel.cli.convert import main

if __name__ == '__main__':
    sys.exit(main())
