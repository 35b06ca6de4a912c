"""Nest to source to binary, and the native call path. Sees devices and ir; knows no operation by name."""
