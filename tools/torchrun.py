#!/usr/bin/env python
import sys

from tokenlabel.cli.torchrun import main

if __name__ == '__main__':
    sys.exit(main())
