"""Where finished frames go: a browser, a file, nowhere."""
