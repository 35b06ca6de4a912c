"""Candidates, prediction, choice. Sees devices and ir; building, measuring and storing only as protocols."""
