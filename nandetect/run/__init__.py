"""`nandetect run`: everything that a program compiles or computes, watched without a change to it."""
