"""What a program is, what may be done to it, and what is known about it. Imports none of the other rooms."""
