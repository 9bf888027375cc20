"""Where the questions of the suites come from, a module a data set."""
