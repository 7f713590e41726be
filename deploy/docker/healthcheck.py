"""Exit 0 when Guard's admin listener answers /healthz in this container, 1 when it does not."""

import http.client
import os
import ssl
import sys

port = int(os.environ.get("GUARD_ADMIN", "").rpartition(":")[2] or 9001)
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
if os.environ.get("GUARD_ADMIN_TLS", "").lower() in ("1", "true", "yes", "on"):
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate names what clients ask for, not this address, which only this container reaches.
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=unchecked)
try:
    connection.request("GET", "/healthz")
    sys.exit(connection.getresponse().status != 200)
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"guard does not answer on 127.0.0.1:{port}: {error}")
