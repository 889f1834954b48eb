"""Serves a flow with prompt flow's own serving app and sends it requests.

Arguments: the flow's folder, the engine, and a JSON object of connections (name -> base URL). Standard input is a JSON list of requests,
each {"method", "path", "headers": [[name, value], ...], "body"}; standard output what became of each.
"""

import json
import os
import sys
import tempfile

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
folder, engine, connections = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
os.environ["PF_HOME_DIRECTORY"] = tempfile.mkdtemp()
os.environ["PROMPTFLOW_PROJECT_PATH"] = folder
os.chdir(folder)
sys.path.insert(0, folder)

from promptflow.core._connection import OpenAIConnection  # noqa: E402
from promptflow.core._serving.app import create_app  # noqa: E402

HEADERS = ("content-type", "access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers")


def provide():
    provided = [OpenAIConnection(name=name, api_key="test-key-of-no-value", base_url=url + "/v1") for name, url in connections.items()]
    for connection in provided:
        connection.to_execution_connection_dict = connection._to_execution_connection_dict  # which the app asks for by its old name
    return provided


def flask_sender(app):
    client = app.test_client()

    def send(r):
        response = client.open(r["path"], method=r["method"], headers=[tuple(h) for h in r["headers"]], data=r["body"].encode("utf-8", "surrogatepass"))
        return response.status_code, response.headers, response.get_data().decode("utf-8")

    return send


def fastapi_sender(app):
    from fastapi.testclient import TestClient

    client = TestClient(app, raise_server_exceptions=False)
    del client.headers["accept"]

    def send(r):
        response = client.request(r["method"], r["path"], headers=[tuple(h) for h in r["headers"]], content=r["body"].encode("utf-8", "surrogatepass"))
        return response.status_code, response.headers, response.text

    return send


app = create_app(engine=engine, connection_provider=provide) if connections else create_app(engine=engine)
send = {"flask": flask_sender, "fastapi": fastapi_sender}[engine](app)
results = []
for request in json.load(sys.stdin):
    try:
        status, headers, body = send(request)
        results.append({"status": status, "body": body, "headers": {name: headers.get(name) for name in HEADERS}})
    except Exception as error:
        results.append({"broken": f"{type(error).__name__}: {error}"})
json.dump(results, answers)
answers.flush()
os._exit(0)
