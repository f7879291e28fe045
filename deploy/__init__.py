"""How the suite is run."""

import os

# Read by gRPC as it is first imported, so it stands before all else. Processes are started by a fork, and with its support
# for forks gRPC goes on working in the child, until what is to run there has begun: some never did.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
