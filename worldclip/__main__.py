"""`python -m worldclip`."""

from worldclip.cli import main

main()
