"""Exit 0 when Guard's admin listener answers /healthz in this container, 1 when it does not."""

import http.client
import os
import sys

port = int(os.environ.get("GUARD_ADMIN", "").rpartition(":")[2] or 9001)
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
try:
    connection.request("GET", "/healthz")
    sys.exit(connection.getresponse().status != 200)
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"guard does not answer on 127.0.0.1:{port}: {error}")
