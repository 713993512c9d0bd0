"""`python -m nandetect`."""

from nandetect.cli import main

main()
