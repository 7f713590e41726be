"""Load a dashboard as Grafana's SDK understands it, and print what it has understood."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()
document = json.loads(Path(sys.argv[1]).read_text())
json.dump(Dashboard.from_json(document), sys.stdout, cls=JSONEncoder)
