"""The commands, one file each: `tokenlabel COMMAND` and `tools/COMMAND.py` call its `main`."""
