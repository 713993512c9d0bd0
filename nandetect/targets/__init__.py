"""What a person names on the command line, as a function and the arguments that it is traced on."""
