"""What `stylewire` does with models from the command line, a file for each command."""
