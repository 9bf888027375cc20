"""The `fairspec` command: parse, call the API, print."""
