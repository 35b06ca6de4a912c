"""What has been learned, how it is found again, and how it travels. Importing the package loads none of its rooms."""
