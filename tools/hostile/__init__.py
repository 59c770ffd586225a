"""Bad input, made from a seed, and the watch that is kept while avdetect scores it. See README.md beside this file."""
