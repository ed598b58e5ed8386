"""The adapters that ship with polyvec, one folder per database."""
