"""Deployment of the suite."""

import os

# gRPC reads this variable at its first import. With fork support on, gRPC threads keep working in a forked child until it
# executes its program, and some children never got that far.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
