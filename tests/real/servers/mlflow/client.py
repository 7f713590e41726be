"""Drive an MLflow scoring server with MLflow's own clients and print what they got as one JSON document.

    client.py BASE_URL [--endpoint NAME]

`ScoringServerClient` posts to `/invocations`; with `--endpoint` the deployments client posts to
`/endpoints/NAME/invocations` as well. CSV, which neither client sends, goes through `requests`. Every call's answer, or
the error that the client raised, stands under the call's name; the test judges their content.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # no call home from a test
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # an error is an answer here: do not wait and ask again

import pandas as pd
import requests
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from sklearn.datasets import load_breast_cancer

ROWS: pd.DataFrame = load_breast_cancer(as_frame=True).data


def bodies(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Give the four JSON forms of the same rows."""
    split = rows.to_dict(orient="split")
    return {
        "dataframe_split": {"dataframe_split": {"columns": split["columns"], "data": split["data"]}},
        "dataframe_records": {"dataframe_records": rows.to_dict(orient="records")},
        "instances": {"instances": rows.to_dict(orient="records")},
        "inputs": {"inputs": rows.to_dict(orient="list")},
    }


def scoring(base_url: str) -> dict[str, Any]:
    """Call through MLflow's scoring client."""
    where = urlsplit(base_url)
    client = ScoringServerClient(where.hostname, where.port)
    calls: dict[str, Any] = {
        "ping": attempt(client.ping),
        "version": attempt(client.get_version),
        "frame": attempt(lambda: client.invoke(ROWS[:3])),
        "frame_shape": attempt(lambda: client.invoke(ROWS[:3]).get_predictions().shape),
        "single": attempt(lambda: client.invoke(ROWS[:1])),
        "bad_shape": attempt(lambda: client.invoke(ROWS.iloc[:2, :7])),
    }
    for form, body in bodies(ROWS[:3]).items():
        # as text: mlflow 3.17 stumbles over a dictionary (dump_input_data iterates its keys as pairs)
        calls[form] = attempt(lambda body=body: client.invoke(json.dumps(body)))
    return calls


def csv(base_url: str) -> dict[str, Any]:
    """Post the rows as CSV."""

    def post(rows: pd.DataFrame) -> dict[str, Any]:
        answer = requests.post(
            f"{base_url.rstrip('/')}/invocations",
            data=rows.to_csv(index=False),
            headers={"Content-Type": "text/csv"},
            timeout=30,
        )
        return {"status": answer.status_code, "body": answer.json()}

    return {"csv": attempt(lambda: post(ROWS[:3])), "csv_bad_shape": attempt(lambda: post(ROWS.iloc[:2, :7]))}


def deployments(base_url: str, endpoint: str) -> dict[str, Any]:
    """Call through MLflow's deployments client."""
    client = get_deploy_client(base_url)
    calls = {
        form: attempt(lambda body=body: client.predict(endpoint=endpoint, inputs=body))
        for form, body in bodies(ROWS[:3]).items()
    }
    wrong = {"dataframe_split": {"columns": ["nobody"], "data": [[1.0]]}}
    calls["bad_shape"] = attempt(lambda: client.predict(endpoint=endpoint, inputs=wrong))
    return calls


def attempt(call: Callable[[], Any]) -> Any:
    """Give the call's answer, or what the client raised."""
    try:
        return call()
    except (MlflowException, requests.RequestException) as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}
    except Exception as error:  # the scoring client raises bare Exception for every status but 200
        return {"error": {"type": type(error).__name__, "message": str(error)}}


def main() -> None:
    """Read the base URL, call, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="http://127.0.0.1:PORT of the server or of the guard before it")
    parser.add_argument("--endpoint", help="also drive the deployments client on /endpoints/NAME/invocations")
    arguments = parser.parse_args()
    document = {"scoring": scoring(arguments.base_url) | csv(arguments.base_url)}
    if arguments.endpoint:
        document["deployments"] = deployments(arguments.base_url, arguments.endpoint)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
