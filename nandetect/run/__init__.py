"""`nandetect run`: everything that a program compiles or computes, watched without a change to it.

`script` runs the program and waits for it to import JAX (`import_hook`); `everywhere` then guards what it jits (`functions`) and logs
what it does not: `wrappers` tell of each operation, `operation_log` holds the last of them, `eager` looks at what they made. `pricing` and
`unjitted` measure at the end what the program's loop could do without.
"""
