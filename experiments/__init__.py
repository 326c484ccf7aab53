"""One script per result, each thin over the public names of `dynmech`."""

import os

# JAX reports, in a screenful of text each, every compiled program that it reads back from disk on
# some processors; it must be told before it is imported. A setting of the user's own stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
