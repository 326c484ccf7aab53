"""One script per result, each thin over the public names of `dynmech`."""
