"""The command line. Importing the package loads none of its rooms."""
